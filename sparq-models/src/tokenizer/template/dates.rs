//! `strftime` as C writes it for Python: no time zone, the names of the locale `C`.

use jiff::Zoned;
use minijinja::Error;

use super::format::invalid;

/// What C writes by itself and jiff writes alike; those in the second text stand for several.
const SINGLE: &str = "aAbBhCdeGgHIjklMmnPpSstUuVWwYy";
const SEVERAL: &str = "cDFRrTxX";

/// What may stand behind `%E` and `%O`, which change nothing.
const ERA: &str = "cCxXyY";
const OTHER_DIGITS: &str = "deHImMSuUVwWy";

/// Writes `now` by `format`.
pub(super) fn strftime(format: &str, now: &Zoned) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let directive = &rest[at..];
        let flags = directive[1..].find(|c| !"-_0^#".contains(c)).unwrap_or(directive.len() - 1);
        let flag = &directive[1..=flags];
        let mut behind = directive[1 + flags..].chars();
        let mut kind = behind.next();
        if let Some(modifier @ ('E' | 'O')) = kind {
            let next = behind.next();
            let known = if modifier == 'E' { ERA } else { OTHER_DIGITS };
            kind = next.filter(|next| known.contains(*next)).or(Some(modifier));
            if kind == Some(modifier) {
                behind = directive[2 + flags..].chars();
            }
        }
        rest = behind.as_str();
        let whole = &directive[..directive.len() - rest.len()];
        let unsupported = || invalid(format!("strftime_now: `{whole}` is not supported"));
        match kind {
            Some('%') if flag.is_empty() => out.push('%'),
            Some('f') if flag.is_empty() => out.push_str(&format!("{:06}", now.subsec_nanosecond() / 1000)),
            Some('z' | 'Z') if flag.is_empty() => {}
            Some(kind) if SEVERAL.contains(kind) && flag.is_empty() => out.push_str(&several(kind, now)?),
            Some(kind) if SINGLE.contains(kind) => match (flag, kind) {
                ("", _) => out.push_str(&single("", kind, now)?),
                (
                    "-" | "_" | "0",
                    'C' | 'd' | 'e' | 'g' | 'H' | 'I' | 'j' | 'k' | 'l' | 'M' | 'm' | 'S' | 'U' | 'V' | 'W'
                    | 'y',
                )
                | ("^", 'a' | 'A' | 'b' | 'B' | 'h' | 'p') => out.push_str(&single(flag, kind, now)?),
                ("-" | "_" | "0" | "^", 'G' | 's' | 'u' | 'w' | 'Y')
                | ("-" | "_" | "0", 'a' | 'A' | 'b' | 'B' | 'h' | 'p' | 'P') => {
                    out.push_str(&single("", kind, now)?);
                }
                _ => return Err(unsupported()),
            },
            Some('0'..='9' | '+' | ':' | '.')
                if rest.chars().next().is_some_and(|c| c.is_ascii_alphanumeric()) =>
            {
                return Err(unsupported());
            }
            Some(_) if !flag.is_empty() => return Err(unsupported()),
            // What it does not know, C writes as it is.
            _ => out.push_str(whole),
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn single(flag: &str, kind: char, now: &Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format!("%{flag}{kind}"), now).map_err(|error| invalid(error.to_string()))
}

fn several(kind: char, now: &Zoned) -> Result<String, Error> {
    let format = match kind {
        'c' => "%a %b %e %H:%M:%S %Y",
        'D' | 'x' => "%m/%d/%y",
        'F' => "%Y-%m-%d",
        'R' => "%H:%M",
        'r' => "%I:%M:%S %p",
        _ => "%H:%M:%S",
    };
    jiff::fmt::strtime::format(format, now).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_writes_them() {
        let now: Zoned = "2026-03-05T04:07:09.012345[Europe/Berlin]".parse().unwrap();
        for (format, expected) in [
            ("%d %b %Y, %A %B %j", "05 Mar 2026, Thursday March 064"),
            (
                "%c|%x|%X|%r|%D|%F|%R|%T",
                "Thu Mar  5 04:07:09 2026|03/05/26|04:07:09|04:07:09 AM|03/05/26|2026-03-05|04:07|04:07:09",
            ),
            ("%f|%z|%Z|%Q|%E|%+|%N|%L|%q|%i", "012345|||%Q|%E|%+|%N|%L|%q|%i"),
            ("%Ey %Od %Ed %Oq %E", "26 05 %Ed %Oq %E"),
            ("%-d/%-m %_d %e %k %l %I %p %P %^a %^B", "5/3  5  5  4  4 04 AM am THU MARCH"),
            ("%U %W %V %G %g %u %w %C %y %h %n%t", "09 09 10 2026 26 4 4 20 26 Mar \n\t"),
            ("100%% é %é 5%", "100% é %é 5%"),
        ] {
            assert_eq!(strftime(format, &now).unwrap(), expected, "{format}");
        }
        for format in ["%5d", "%-5d", "%_c", "%:z"] {
            assert!(strftime(format, &now).unwrap_err().to_string().contains("is not supported"), "{format}");
        }
    }
}
