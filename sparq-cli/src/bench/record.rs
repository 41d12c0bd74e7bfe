//! Writing results as they come.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::{args::Format, output};

/// A result: all of it as JSON and CSV, the cells of a table as Markdown.
pub(super) trait Record: Serialize {
    /// Titles of the table's columns; text is left-aligned, numbers, marked by `:`, right-aligned.
    fn titles() -> &'static [&'static str];

    /// One cell for each title.
    fn cells(&self) -> Vec<String>;
}

/// Writes records of one kind.
pub(super) struct Writer<W> {
    out: W,
    format: Format,
    written: usize,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        Self { out, format, written: 0 }
    }

    /// Writes a record, with the head of the table before the first.
    pub(super) fn write<R: Record>(&mut self, record: &R) -> anyhow::Result<()> {
        let text = self.text(record)?;
        self.written += 1;
        self.put(&text)
    }

    /// Ends the list.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        match (self.format, self.written) {
            (Format::Json, 0) => self.put("[]\n"),
            (Format::Json, _) => self.put("\n]\n"),
            _ => Ok(()),
        }
    }

    fn put(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.context("cannot write to standard output")
    }

    fn text<R: Record>(&self, record: &R) -> anyhow::Result<String> {
        let is_first = self.written == 0;
        Ok(match self.format {
            Format::Jsonl => output::json(&serde_json::to_string(record)?) + "\n",
            Format::Json => {
                let open = if is_first { "[\n" } else { ",\n" };
                open.to_owned() + &output::json(&serde_json::to_string_pretty(record)?)
            }
            Format::Csv => output::printable(&csv(&serde_json::to_value(record)?, is_first)),
            Format::Md => markdown(record, is_first),
        })
    }
}

fn csv(record: &Value, with_head: bool) -> String {
    let fields = record.as_object().into_iter().flatten();
    // Lists of samples are for programs that read JSON.
    let fields: Vec<_> = fields.filter(|(_, value)| !value.is_array()).collect();
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let head = if with_head {
        line(fields.iter().map(|(name, _)| (*name).clone()).collect())
    } else {
        String::new()
    };
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    };
    head + &line(fields.iter().map(|(_, value)| cell(value)).collect())
}

fn markdown<R: Record>(record: &R, with_head: bool) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    if with_head {
        let titles: Vec<String> =
            R::titles().iter().map(|title| title.trim_end_matches(':').to_owned()).collect();
        let rules = R::titles().iter().map(|title| if title.ends_with(':') { "--:" } else { "---" });
        text += &line(&titles);
        text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
    }
    text + &line(&record.cells().iter().map(|text| output::cell(text)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        speed: f64,
        rank: Option<usize>,
        samples: Vec<f64>,
    }

    impl Record for Sample {
        fn titles() -> &'static [&'static str] {
            &["name", "t/s:"]
        }

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), format!("{:.1}", self.speed)]
        }
    }

    fn written(format: Format, count: usize) -> String {
        let mut out = vec![];
        let mut writer = Writer::new(&mut out, format);
        for speed in 0..count {
            let record = Sample { name: "a \"b\"", speed: speed as f64, rank: None, samples: vec![1.0] };
            writer.write(&record).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_format_has_its_form() {
        assert_eq!(
            written(Format::Md, 2),
            "| name | t/s |\n|---|--:|\n| a \"b\" | 0.0 |\n| a \"b\" | 1.0 |\n"
        );
        assert_eq!(written(Format::Csv, 1), "name,rank,speed\n\"a \"\"b\"\"\",,0.0\n");
        for count in 0..3 {
            let list: Vec<Value> = serde_json::from_str(&written(Format::Json, count)).unwrap();
            assert_eq!(list.len(), count);
            let lines = written(Format::Jsonl, count);
            assert_eq!(
                lines.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(),
                count
            );
        }
    }
}
