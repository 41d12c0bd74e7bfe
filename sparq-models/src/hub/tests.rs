mod server;

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use server::{COMMIT, Gate, Server};

const WEIGHTS: [u8; 1000] = [7; 1000];

fn server() -> Server {
    Server::start(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"version\": \"1.0\"}"),
        ("README.md", b"not needed"),
        ("consolidated.safetensors", b"not needed"),
        ("model.safetensors", &WEIGHTS),
    ])
}

/// The hub at this address, with a cache of its own.
fn hub(address: &str, home: &TempDir, token: Option<&str>) -> Hub {
    let home = home.path().to_str().unwrap().to_owned();
    let token = token.map(str::to_owned);
    Hub::from_variables(&|name| match name {
        "HF_HOME" => Some(home.clone()),
        "HF_ENDPOINT" => Some(address.to_owned()),
        "HF_TOKEN" => token.clone(),
        _ => None,
    })
}

fn fetch(hub: &Hub, name: &str) -> Result<PathBuf> {
    hub.model(&name.parse().unwrap(), &mut |_| ())
}

/// The files of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_needed_comes_once() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    let mut last = vec![];
    let folder = hub
        .model(&"org/name".parse().unwrap(), &mut |event| {
            if let HubEvent::Download { file, done, total } = event {
                last.push((file.to_owned(), done, total));
            }
        })
        .unwrap();
    assert_eq!(names(&folder), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(last.last(), Some(&("model.safetensors".to_owned(), 1000, 1000)));
    // As every tool of the hub lays it out.
    let model = home.path().join("hub/models--org--name");
    assert_eq!(folder, model.join("snapshots").join(COMMIT));
    assert_eq!(names(&model.join("refs")), ["main"]);
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    assert!(fs::read_link(folder.join("config.json")).unwrap().starts_with("../../blobs"));
    assert!(
        !server
            .requests()
            .iter()
            .any(|request| request.contains("README") || request.contains("consolidated"))
    );

    // From then on, the one question which commit is the newest; none for a commit or offline.
    assert_eq!(fetch(&hub, "org/name").unwrap(), folder);
    assert_eq!(server.requests(), ["/api/models/org/name/revision/main"]);
    assert_eq!(fetch(&hub, &format!("org/name@{COMMIT}")).unwrap(), folder);
    assert_eq!(fetch(&hub.clone().offline(), "org/name").unwrap(), folder);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn shards_come_by_their_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let server = Server::start(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("model-3.safetensors", b"not in the index"),
    ]);
    let home = TempDir::new().unwrap();
    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    let expected =
        ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"];
    assert_eq!(names(&folder), expected);
}

#[test]
fn large_files_may_lie_elsewhere() {
    let (server, home) = (server(), TempDir::new().unwrap());
    server.change(|rules| rules.redirects = true);
    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(server.requests().contains(&"/cdn/model.safetensors 0-".to_owned()));
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    // Each connection gives 300 bytes: the same call goes on by itself.
    server.change(|rules| rules.cut_after = Some(300));
    let folder = fetch(&hub, "org/name").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    let starts: Vec<String> =
        server.requests().into_iter().filter(|request| request.ends_with('-')).collect();
    let of_weights = |start: usize| format!("/org/name/resolve/{COMMIT}/model.safetensors {start}-");
    assert!(starts.ends_with(&[0, 300, 600, 900].map(of_weights)), "{starts:?}");
}

#[test]
fn what_broke_off_does_not_count_as_there() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    server.change(|rules| rules.cut_after = Some(100));
    let blobs = home.path().join("hub/models--org--name/blobs");
    // Of an earlier run.
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("model-safetensors-1000.part"), &WEIGHTS[..500]).unwrap();
    server.change(|rules| rules.cut_after = Some(0));
    server.change(|rules| drop(rules.files.remove("tokenizer.json")));
    let error = fetch(&hub, "org/name").unwrap_err();
    assert!(matches!(&error, HubError::Interrupted { file, .. } if file == "config.json"), "{error:?}");
    assert!(error.hint().contains("run the same command again"));
    server.change(|rules| rules.cut_after = None);
    server.change(|rules| drop(rules.files.insert("config.json".to_owned(), b"{".to_vec())));
    fetch(&hub, "org/name").unwrap();
    let weights = format!("/org/name/resolve/{COMMIT}/model.safetensors 500-");
    assert!(server.requests().contains(&weights));

    let folder = home.path().join("hub/models--org--name/snapshots").join(COMMIT);
    // A leftover that is whole needs no more bytes, and one that is too long is begun again.
    for leftover in [WEIGHTS.to_vec(), vec![8; 2000]] {
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        fs::remove_file(blobs.join("model-safetensors-1000")).unwrap();
        fs::write(blobs.join("model-safetensors-1000.part"), &leftover).unwrap();
        fetch(&hub, "org/name").unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
        let again = server.requests().iter().any(|request| request.ends_with("model.safetensors 0-"));
        assert_eq!(again, leftover.len() > 1000);
    }
    // A new commit with the same weights only needs a link.
    fs::remove_dir_all(&folder).unwrap();
    fetch(&hub, "org/name").unwrap();
    assert!(!server.requests().iter().any(|request| request.ends_with("0-")));
}

#[test]
fn refusals_read_differently() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let with = |token| hub(&server.address, &home, token);
    server.change(|rules| rules.gate = Gate::Gated);
    let error = fetch(&with(None), "org/name").unwrap_err();
    assert!(matches!(error, HubError::NoToken { .. }) && error.to_string().contains("no token was given"));
    assert!(error.hint().contains("/org/name") && error.hint().contains("HF_TOKEN"), "{}", error.hint());
    let error = fetch(&with(Some("other")), "org/name").unwrap_err();
    assert!(matches!(error, HubError::Gated { .. }) && error.to_string().contains("licence is not accepted"));
    fetch(&with(Some("good")), "org/name").unwrap();

    server.change(|rules| rules.status = Some(401));
    let error = fetch(&with(Some("old")), "org/name@v2").unwrap_err();
    assert!(matches!(error, HubError::BadToken { .. }) && error.to_string().contains("HF_TOKEN"), "{error}");
    server.change(|rules| rules.status = Some(503));
    let error = fetch(&with(None), "org/name").unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }) && error.to_string().contains("503"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let (anyone, member) = (hub(&server.address, &home, None), hub(&server.address, &home, Some("good")));
    assert!(matches!(fetch(&anyone, "org/other"), Err(HubError::NoToken { .. })));
    assert!(matches!(fetch(&member, "org/other"), Err(HubError::NoModel { .. })));
    let error = fetch(&anyone, "org/name@v9").unwrap_err();
    assert!(matches!(error, HubError::NoRevision { .. }) && error.to_string().contains("`v9`"), "{error}");
    server.change(|rules| drop(rules.files.remove("model.safetensors")));
    server.change(|rules| drop(rules.files.insert("b.safetensors".to_owned(), vec![1])));
    let error = fetch(&anyone, "org/name").unwrap_err();
    assert!(matches!(error, HubError::NoFile { .. }) && error.to_string().contains("weights"), "{error}");
    server.change(|rules| drop(rules.files.remove("config.json")));
    let error = fetch(&anyone, "org/name").unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn without_a_connection_the_cache_is_taken() {
    let (server, home) = (server(), TempDir::new().unwrap());
    // A port that nothing listens on.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cut_off = hub(&format!("http://{nowhere}"), &home, None);
    let error = fetch(&cut_off, "org/name").unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error:?}");
    assert!(error.to_string().contains(&nowhere.to_string()) && error.hint().contains("HF_ENDPOINT"));
    let error = fetch(&cut_off.clone().offline(), "org/name").unwrap_err();
    assert!(
        matches!(error, HubError::Offline { .. }) && error.hint().contains("sparq pull org/name"),
        "{error}"
    );

    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    let mut events = vec![];
    let again =
        cut_off.model(&"org/name".parse().unwrap(), &mut |event| events.push(event == HubEvent::FromCache));
    assert_eq!((again.unwrap(), events), (folder.clone(), vec![true]));
    // Without its weights, it is not complete.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let error = fetch(&cut_off.offline(), "org/name").unwrap_err().to_string();
    assert!(error.contains("no weights"), "{error}");
}
