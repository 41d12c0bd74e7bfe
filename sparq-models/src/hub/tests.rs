mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

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
    let hub = Hub::from_variables(&|name| match name {
        "HF_HOME" => Some(home.clone()),
        "HF_ENDPOINT" => Some(address.to_owned()),
        "HF_TOKEN" => token.clone(),
        _ => None,
    });
    Hub { wait: Duration::from_millis(1), ..hub }
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
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("model-3.safetensors", b"not in the index"),
    ]);
    let home = TempDir::new().unwrap();
    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&folder), expected);
}

#[test]
fn shards_may_lie_in_folders_and_an_index_that_leads_elsewhere_is_refused_by_itself() {
    let index = |shard: &str| format!(r#"{{"weight_map": {{"a": "./1.bin", "b": "{shard}"}}}}"#).into_bytes();
    let server = Server::start(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", &index("s/2.safetensors")),
        ("1.bin", b"one"),
        ("s/2.safetensors", b"two"),
    ]);
    let home = TempDir::new().unwrap();
    let here = hub(&server.address, &home, None);
    let folder = fetch(&here, "org/name").unwrap();
    assert_eq!(fs::read(folder.join("s/2.safetensors")).unwrap(), b"two");
    assert_eq!(fetch(&here.clone().offline(), "org/name").unwrap(), folder);
    // The hub is not asked for a shard that is there.
    server.change(|rules| rules.status = Some(503));
    assert_eq!(here.pull(&"org/name".parse().unwrap(), &mut |_| ()).unwrap(), folder);
    server.change(|rules| {
        rules.status = None;
        rules.files.insert("model.safetensors.index.json".to_owned(), index("../2.safetensors"));
    });
    let error = fetch(&hub(&server.address, &TempDir::new().unwrap(), None), "org/name").unwrap_err();
    assert!(matches!(error, HubError::Index { .. }), "{error:?}");
    assert!(error.to_string().starts_with("model `org/name` cannot be fetched: `"), "{error}");
    assert!(error.to_string().contains("names `../2.safetensors`"), "{error}");
    assert!(error.hint().contains("beside it or in folders there"), "{}", error.hint());
}

#[test]
fn large_files_may_lie_elsewhere() {
    let (server, home) = (server(), TempDir::new().unwrap());
    server.change(|rules| rules.redirects = true);
    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(server.requests().contains(&"/cdn/model.safetensors".to_owned()));
    // What the hub itself says is enough for what is there.
    fs::remove_dir_all(&folder).unwrap();
    fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    assert!(!server.requests().iter().any(|request| request.contains("/cdn/")));
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
    assert_eq!(starts, [300, 600, 900].map(of_weights));
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
    let error = fetch(&hub, "org/name").unwrap_err();
    assert!(matches!(&error, HubError::Interrupted { file, .. } if file == "config.json"), "{error:?}");
    assert!(error.hint().contains("run the same command again"));
    server.change(|rules| rules.cut_after = None);
    server.change(|rules| drop(rules.files.insert("config.json".to_owned(), b"{".to_vec())));
    fetch(&hub, "org/name").unwrap();
    let weights = format!("/org/name/resolve/{COMMIT}/model.safetensors 500-");
    assert!(server.requests().contains(&weights));

    let folder = home.path().join("hub/models--org--name/snapshots").join(COMMIT);
    // A leftover that is whole, and one that is too long and is begun again.
    for leftover in [WEIGHTS.to_vec(), vec![8; 2000]] {
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        fs::remove_file(blobs.join("model-safetensors-1000")).unwrap();
        fs::write(blobs.join("model-safetensors-1000.part"), &leftover).unwrap();
        server.change(|rules| rules.cut_after = (leftover.len() == 1000).then_some(0));
        fetch(&hub, "org/name").unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
        assert!(!blobs.join("model-safetensors-1000.part").exists());
    }
    // A new commit with the same files only needs links.
    server.change(|rules| rules.cut_after = Some(0));
    fs::remove_dir_all(&folder).unwrap();
    fetch(&hub, "org/name").unwrap();
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
    let error = fetch(&with(None), "org/name@v2").unwrap_err();
    assert!(matches!(error, HubError::Busy { .. }) && error.to_string().contains("503"), "{error}");
}

#[test]
fn a_hub_that_cannot_answer_now_is_asked_again() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let waits = |hub: &Hub, pull: bool| {
        let (name, mut waits) = ("org/name".parse().unwrap(), 0);
        let mut events =
            |event: HubEvent<'_>| waits += usize::from(matches!(event, HubEvent::Waiting { .. }));
        let found = if pull { hub.pull(&name, &mut events) } else { hub.model(&name, &mut events) };
        (found, waits)
    };
    let hub = hub(&server.address, &home, None);
    for status in [408, 429, 500, 502, 503, 504] {
        server.change(|rules| rules.refusals = vec![(status, None); 3]);
        let (found, waited) = waits(&hub, true);
        assert!(found.is_ok() && waited == 3, "{status}: {found:?}");
    }
    // The answer to a file is asked for again as well.
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    server.change(|rules| (rules.refusals, rules.spared) = (vec![(503, None); 4], 2));
    assert!(waits(&hub, false).0.is_ok());
    server.change(|rules| rules.spared = 0);

    // A wait that the hub names is kept to.
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    server.change(|rules| rules.refusals = vec![(429, Some(0)); 2]);
    let slow = Hub { wait: Duration::from_secs(3600), ..hub.clone() };
    assert!(matches!(waits(&slow, false), (Ok(_), 2)));

    // It ends, and says how to go on.
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    server.requests();
    server.change(|rules| rules.status = Some(429));
    let (found, waited) = waits(&hub, true);
    let error = found.unwrap_err();
    assert!(error.to_string().contains("status 429") && error.hint().contains("HF_TOKEN"), "{error}");
    assert_eq!((waited, server.requests().len()), (4, 5));
    server.change(|rules| (rules.status, rules.refusals) = (None, vec![(429, Some(1000))]));
    let error = waits(&hub, true).0.unwrap_err();
    assert!(error.to_string().contains("asks to wait for 1000 s"), "{error}");
    assert!(error.hint().starts_with("wait for 1000 s"), "{}", error.hint());
}

#[test]
fn a_download_that_gets_further_goes_on_however_often_it_breaks_off() {
    let (server, home) = (server(), TempDir::new().unwrap());
    server.change(|rules| rules.cut_after = Some(20));
    let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    let starts = server.requests().into_iter().filter(|request| request.ends_with('-')).count();
    assert_eq!(starts, 49);
}

#[test]
fn what_the_cache_has_of_a_model_is_told() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    let error = |name: &str| {
        let error = fetch(&hub.clone().offline(), name).unwrap_err();
        (error.to_string(), error.hint())
    };
    assert!(error("org/name").0.contains("(no files at all)"));
    let folder = fetch(&hub, "org/name").unwrap();
    let refs = home.path().join("hub/models--org--name/refs");
    fs::write(refs.join("old"), "4567").unwrap();
    let (message, hint) = error("org/name@old");
    assert!(message.contains("(no files of commit `4567`)"), "{message}");
    assert!(hint.contains(&format!("org/name@{COMMIT}")), "{hint}");
    fs::remove_file(refs.join("main")).unwrap();
    let (message, hint) = error("org/name");
    assert!(message.contains("(no refs/main, which notes what commit `main` is)"), "{message}");
    assert!(hint.contains(&format!("org/name@{COMMIT}")), "{hint}");
    assert_eq!(fetch(&hub.offline(), &format!("org/name@{COMMIT}")).unwrap(), folder);
}

#[test]
fn what_is_missing_is_named() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let (anyone, member) = (hub(&server.address, &home, None), hub(&server.address, &home, Some("good")));
    assert!(matches!(fetch(&anyone, "org/other"), Err(HubError::NoToken { .. })));
    assert!(matches!(fetch(&member, "org/other"), Err(HubError::NoModel { .. })));
    let error = fetch(&anyone, "org/name@v9").unwrap_err();
    assert!(matches!(error, HubError::NoRevision { .. }) && error.to_string().contains("`v9`"), "{error}");
    let server = Server::start(&[("config.json", b"{}"), ("adapter_model.safetensors", b"")]);
    let error = fetch(&hub(&server.address, &home, None), "org/name").unwrap_err();
    assert!(matches!(error, HubError::NoWeights { .. }) && error.to_string().contains("adapter"), "{error}");
    assert!(!server.requests().iter().any(|request| request.contains("resolve")));
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
    let again = cut_off.model(&"org/name".parse().unwrap(), &mut |event| {
        events
            .push(matches!(event, HubEvent::FromCache { reason } if reason.contains("cannot reach the hub")));
    });
    assert_eq!((again.unwrap(), events), (folder.clone(), vec![true]));
    // Without its weights, it is not complete.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let error = fetch(&cut_off.offline(), "org/name").unwrap_err().to_string();
    assert!(error.contains("no weights"), "{error}");
}

/// What `model` says beside the folder.
fn notes(hub: &Hub, name: &str) -> (Result<PathBuf>, Vec<String>) {
    let mut notes = vec![];
    let folder = hub.model(&name.parse().unwrap(), &mut |event| match event {
        HubEvent::Download { .. } | HubEvent::Waiting { .. } => {}
        HubEvent::FromCache { reason } => notes.push(reason.to_owned()),
        HubEvent::NeverFetched { files } => notes.push(format!("never fetched: {files}")),
    });
    (folder, notes)
}

/// Every path below a folder, with the time of its last change.
fn everything(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = vec![(folder.to_owned(), fs::symlink_metadata(folder).unwrap().modified().unwrap())];
    if folder.is_dir() && !folder.is_symlink() {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        found.extend(entries.iter().flat_map(|path| everything(path)));
    }
    found
}

#[test]
fn a_model_that_is_whole_in_the_cache_runs_whatever_the_hub_answers() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let with = |token| hub(&server.address, &home, token);
    let folder = fetch(&with(None), "org/name").unwrap();
    let before = everything(home.path());
    for status in [400, 401, 403, 404, 408, 410, 418, 429, 451, 500, 502, 503, 504] {
        server.change(|rules| rules.status = Some(status));
        for token in [None, Some("old")] {
            let (found, notes) = notes(&with(token), "org/name");
            assert_eq!(found.unwrap(), folder, "{status}");
            assert_eq!(notes.len(), 1, "{status}: {notes:?}");
        }
    }
    server.change(|rules| (rules.status, rules.page) = (None, true));
    let (found, said) = notes(&with(None), "org/name");
    assert_eq!(found.unwrap(), folder);
    assert!(said.len() == 1 && said[0].contains("a web page instead"), "{said:?}");
    // A newer version that is no model, or that does not come, leaves the older one.
    server.change(|rules| rules.page = false);
    server.change(|rules| drop(rules.files.remove("config.json")));
    let (found, said) = notes(&with(None), "org/name");
    assert_eq!(found.unwrap(), folder);
    assert!(said.len() == 1 && said[0].contains("config.json"), "{said:?}");
    // Nothing was written: the cache may be another user's.
    assert_eq!(everything(home.path()), before);
}

#[test]
fn a_complete_cache_is_not_written() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    fetch(&hub, "org/name").unwrap();
    let before = everything(home.path());
    fetch(&hub, "org/name").unwrap();
    fetch(&hub.offline(), "org/name").unwrap();
    assert_eq!(everything(home.path()), before);
}

#[test]
fn mirrors_may_leave_out_what_is_not_needed() {
    let server = server();
    for rules in [
        |rules: &mut server::Rules| rules.no_range = true,
        |rules: &mut server::Rules| rules.no_commit = true,
        |rules: &mut server::Rules| drop(rules.files.insert("special_tokens_map.json".to_owned(), vec![])),
        |rules: &mut server::Rules| drop(rules.marks.insert("config.json".to_owned(), "f".repeat(40))),
    ] {
        server.change(rules);
        let home = TempDir::new().unwrap();
        // Each connection that goes on where the last one broke off begins again without ranges.
        let folder = fetch(&hub(&server.address, &home, None), "org/name").unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
        let part = home.path().join("hub/models--org--name/blobs/model-safetensors-1000.part");
        fs::remove_file(part.with_extension("")).unwrap();
        fs::write(part, &WEIGHTS[..10]).unwrap();
        fetch(&hub(&server.address, &home, None), "org/name").unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    }
    server.change(|rules| drop(rules.marks.insert("config.json".to_owned(), "../x".to_owned())));
    let error = fetch(&hub(&server.address, &TempDir::new().unwrap(), None), "org/name").unwrap_err();
    assert!(error.to_string().contains("`config.json` has the mark `../x`"), "{error}");
}

fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server whose files carry their hashes, the folder of the model in the cache, and the path of the blob of
/// its weights.
fn pulled(home: &TempDir) -> (Server, Hub, PathBuf, PathBuf) {
    let server = server();
    server.change(|rules| {
        rules.marks =
            rules.files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect::<BTreeMap<_, _>>();
    });
    let hub = hub(&server.address, home, None);
    let folder = pull(&hub).unwrap();
    let blob = home.path().join("hub/models--org--name/blobs").join(sha256(&WEIGHTS));
    (server, hub, folder, blob)
}

fn pull(hub: &Hub) -> Result<PathBuf> {
    hub.pull(&"org/name".parse().unwrap(), &mut |_| ())
}

#[test]
fn pull_mends_what_is_damaged() {
    let home = TempDir::new().unwrap();
    let (_server, hub, folder, blob) = pulled(&home);
    let pointer = folder.join("model.safetensors");
    let clear = |path: &Path| {
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    };
    let damages: [&dyn Fn(); 6] = [
        &|| fs::write(&blob, &WEIGHTS[..500]).unwrap(),
        &|| fs::write(&blob, []).unwrap(),
        &|| fs::write(&blob, [8; 1000]).unwrap(),
        &|| {
            clear(&blob);
            fs::create_dir(&blob).unwrap();
            fs::write(blob.join("x"), "x").unwrap();
        },
        &|| {
            clear(&pointer);
            fs::create_dir(&pointer).unwrap();
        },
        &|| {
            clear(&blob);
            // Of another file.
            fs::write(blob.with_extension("part"), [8; 400]).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        assert_eq!(pull(&hub).unwrap(), folder);
        assert_eq!(fs::read(&pointer).unwrap(), WEIGHTS, "{number}");
    }
    // A whole file of other bytes that was left.
    clear(&blob);
    fs::write(blob.with_extension("part"), [8; 1000]).unwrap();
    pull(&hub).unwrap();
    assert_eq!(fs::read(&pointer).unwrap(), WEIGHTS);
}

#[test]
fn what_was_only_linked_does_not_count_as_checked() {
    let home = TempDir::new().unwrap();
    let (_server, hub, folder, blob) = pulled(&home);
    fs::write(&blob, [8; 1000]).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    // A new commit takes what has the right size.
    fetch(&hub, "org/name").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), [8; 1000]);
    pull(&hub).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_file_is_hashed_again_when_its_size_or_time_changes() {
    let home = TempDir::new().unwrap();
    let (_server, hub, _, blob) = pulled(&home);
    let time = fs::metadata(&blob).unwrap().modified().unwrap();
    let write = |time| {
        fs::write(&blob, [8; 1000]).unwrap();
        fs::File::options().write(true).open(&blob).unwrap().set_modified(time).unwrap();
        pull(&hub).unwrap();
        fs::read(&blob).unwrap()[0]
    };
    // With the time that it was found right at, it is taken for unchanged.
    assert_eq!(write(time), 8);
    assert_eq!(write(time + Duration::from_secs(1)), WEIGHTS[0]);
}

#[test]
fn what_comes_must_have_the_hash_that_the_hub_names() {
    let (server, home) = (server(), TempDir::new().unwrap());
    server.change(|rules| drop(rules.marks.insert("model.safetensors".to_owned(), sha256(b"other"))));
    let error = fetch(&hub(&server.address, &home, None), "org/name").unwrap_err();
    assert!(matches!(&error, HubError::Corrupt { file, .. } if file == "model.safetensors"), "{error}");
    let blobs = names(&home.path().join("hub/models--org--name/blobs"));
    assert_eq!(blobs, ["config-json-2", "tokenizer-json-18"]);
}

#[test]
fn pull_without_a_hub_checks_the_cache_by_itself() {
    let home = TempDir::new().unwrap();
    let (server, hub, folder, blob) = pulled(&home);
    server.change(|rules| rules.status = Some(503));
    assert_eq!(pull(&hub).unwrap(), folder);
    fs::write(&blob, [8; 1000]).unwrap();
    assert!(pull(&hub).unwrap_err().to_string().contains("503"));
    // Who may not read a model learns that from `pull`.
    server.change(|rules| rules.status = Some(403));
    assert!(matches!(pull(&hub), Err(HubError::Gated { .. })));
}

#[test]
fn what_was_never_fetched_is_told_without_a_connection() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let hub = hub(&server.address, &home, None);
    let folder = fetch(&hub, "org/name").unwrap();
    // The model has none of them, and that is known.
    let (found, said) = notes(&hub.clone().offline(), "org/name");
    assert_eq!((found.unwrap(), said), (folder, vec![]));
    fs::remove_dir_all(home.path().join("hub/models--org--name/.no_exist")).unwrap();
    let (_, said) = notes(&hub.offline(), "org/name");
    let files = "generation_config.json, tokenizer_config.json, chat_template.jinja";
    assert_eq!(said, [format!("never fetched: {files}")]);
}
