//! A small server that plays the hub, for tests.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The commit of the one model, `org/name`.
pub(crate) const COMMIT: &str = "0123456789012345678901234567890123456789";

/// Who may read the model's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    #[default]
    Open,
    /// Only the token `good`; others get 401 without a token and 403 with one.
    Gated,
}

/// How the server behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) gate: Gate,
    /// Sends the reader on to another path, as the hub does for large files.
    pub(crate) redirects: bool,
    /// Closes the connection after so many bytes of a file.
    pub(crate) cut_after: Option<usize>,
    /// Answers everything with this status.
    pub(crate) status: Option<u16>,
    /// Refuses the next requests with these statuses and waits, the last one first.
    pub(crate) refusals: Vec<(u16, Option<u64>)>,
    /// Requests to answer before it does.
    pub(crate) spared: usize,
    /// Answers everything with a web page.
    pub(crate) page: bool,
    /// Marks of files; a file without one has its name and size.
    pub(crate) marks: BTreeMap<String, String>,
    /// Gives whole files only, as some mirrors do.
    pub(crate) no_range: bool,
    /// Does not say which commit a file is of.
    pub(crate) no_commit: bool,
}

/// The server; its thread ends with the test.
pub(crate) struct Server {
    pub(crate) address: String,
    rules: Arc<Mutex<Rules>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves these files as `org/name`.
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let rules = Arc::new(Mutex::new(Rules { files, ..Rules::default() }));
        let requests = Arc::new(Mutex::new(vec![]));
        let server = Self { address, rules: Arc::clone(&rules), requests: Arc::clone(&requests) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (rules, requests) = (Arc::clone(&rules), Arc::clone(&requests));
                // A reader that went away is no business of the server's.
                thread::spawn(move || drop(serve(stream, &rules, &requests)));
            }
        });
        server
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().unwrap());
    }

    /// The requests since the last call: `PATH`, with ` FIRST-LAST` for a range.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(stream: TcpStream, rules: &Mutex<Rules>, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        if reader.by_ref().read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")).map(str::to_owned);
    let token =
        headers.get("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let note = range.as_deref().map_or(path.clone(), |range| format!("{path} {range}"));
    requests.lock().unwrap().push(note);
    let (rules, refusal) = {
        let mut rules = rules.lock().unwrap();
        let refusal = if rules.spared == 0 { rules.refusals.pop() } else { None };
        rules.spared = rules.spared.saturating_sub(1);
        (rules.clone(), refusal)
    };
    if let Some((status, wait)) = refusal {
        let wait = wait.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n"));
        return write!(
            &stream,
            "HTTP/1.1 {status} Busy\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let (head, body) = answer(&path, range.as_deref(), token.as_deref(), &rules);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    let cut = rules.cut_after.filter(|_| !path.starts_with("/api/"));
    stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])
}

/// Status line with headers, and body.
fn answer(path: &str, range: Option<&str>, token: Option<&str>, rules: &Rules) -> (String, Vec<u8>) {
    let refuse = |status: &str, code: &str| (format!("{status}\r\nX-Error-Code: {code}"), vec![]);
    if rules.page {
        return ("200 OK\r\nContent-Type: text/html".to_owned(), b"<html>please sign in</html>".to_vec());
    }
    if let Some(status) = rules.status {
        return refuse(&format!("{status} Broken"), "");
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let (repo, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
        return match (repo, revision, token) {
            ("org/name", "main" | COMMIT, _) => {
                let names = rules.files.keys().map(|name| format!(r#"{{"rfilename": "{name}"}}"#));
                let names: Vec<String> = names.collect();
                let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, names.join(", "));
                ("200 OK\r\nContent-Type: application/json".to_owned(), body.into_bytes())
            }
            ("org/name", ..) => refuse("404 Not Found", "RevisionNotFound"),
            // As the hub does: who is not known does not learn what exists.
            (_, _, None) => refuse("401 Unauthorized", "RepoNotFound"),
            _ => refuse("404 Not Found", "RepoNotFound"),
        };
    }
    let (file, first) = match path.strip_prefix("/cdn/") {
        Some(file) => (file, false),
        None => (path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")).unwrap_or_default(), true),
    };
    if rules.gate == Gate::Gated && first && token != Some("good") {
        return match token {
            None => refuse("401 Unauthorized", "GatedRepo"),
            Some(_) => refuse("403 Forbidden", "GatedRepo"),
        };
    }
    let Some(bytes) = rules.files.get(file) else {
        return refuse("404 Not Found", "EntryNotFound");
    };
    let mark = rules.marks.get(file).cloned();
    let mark = mark.unwrap_or_else(|| format!("{}-{}", file.replace(['.', '/'], "-"), bytes.len()));
    let commit = if rules.no_commit { String::new() } else { format!("\r\nX-Repo-Commit: {COMMIT}") };
    let mark = format!("ETag: \"{mark}\"{commit}");
    if rules.redirects && first {
        return (
            format!("302 Found\r\nLocation: /cdn/{file}\r\n{}", mark.replace("ETag", "X-Linked-ETag")),
            vec![],
        );
    }
    let from = range.filter(|_| !rules.no_range).and_then(|range| range.split('-').next()?.parse().ok());
    match from {
        None => (format!("200 OK\r\n{mark}"), bytes.clone()),
        Some(from) if from >= bytes.len() => refuse("416 Range Not Satisfiable", ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            (format!("206 Partial Content\r\nContent-Range: {range}\r\n{mark}"), bytes[from..].to_vec())
        }
    }
}
