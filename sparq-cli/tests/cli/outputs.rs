//! Where results go: links, devices, pipes, rights, signals, and streams that are full or closed.

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::common::sparq;
use tempfile::TempDir;

/// A generation of a few words to `path`.
fn generate(path: &Path) -> assert_cmd::assert::Assert {
    sparq().args(["generate", "Once upon a time", "-n", "8", "-q", "-o"]).arg(path).assert()
}

/// What a generation writes.
fn text() -> String {
    let assert = sparq().args(["generate", "Once upon a time", "-n", "8", "-q"]).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).unwrap().trim_end_matches('\n').to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("sparq"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs a line of a shell, in which `$SPARQ` is the program.
fn shell(line: &str, folder: &Path) -> Output {
    Command::new("sh")
        .args(["-c", line])
        .env("SPARQ", assert_cmd::cargo::cargo_bin("sparq"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn links_are_followed() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/old"), "old").unwrap();
    symlink("sub/old", at("link")).unwrap();
    symlink("link", at("link to a link")).unwrap();
    symlink("sub/new", at("dangling")).unwrap();
    for (name, target) in [("link to a link", "sub/old"), ("dangling", "sub/new")] {
        generate(&at(name)).success();
        assert_eq!(fs::read_to_string(at(target)).unwrap(), text());
        assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink());
    }
    symlink("circle", at("circle")).unwrap();
    generate(&at("circle")).code(1);
    assert_eq!(fs::read_dir(at("sub")).unwrap().count(), 2, "no temporary file");
}

#[test]
fn devices_and_pipes_are_written_to_as_they_are() {
    let folder = TempDir::new().unwrap();
    generate(Path::new("/dev/null")).success();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let link = folder.path().join("link");
    symlink("/dev/full", &link).unwrap();
    if cfg!(target_os = "linux") {
        generate(&link).code(1).stderr(predicates::str::contains("cannot write to"));
    }
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    generate(&pipe).success();
    assert_eq!(reader.join().unwrap(), text());
    // Standard output by its names, also where it is a file that has something in it already.
    let text = text();
    for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        if cfg!(target_os = "linux") || path != "/proc/self/fd/1" {
            assert_eq!(generate(Path::new(path)).success().get_output().stdout, text.as_bytes());
        }
    }
    let line = "echo first > out; $SPARQ generate 'Once upon a time' -n 8 -q -o /dev/stdout >> out";
    assert!(shell(line, folder.path()).status.success());
    assert_eq!(fs::read_to_string(folder.path().join("out")).unwrap(), format!("first\n{text}"));
    let line = "$SPARQ generate 'Once upon a time' -n 8 -q -o /dev/fd/3 3> three";
    assert!(shell(line, folder.path()).status.success());
    assert_eq!(fs::read_to_string(folder.path().join("three")).unwrap(), text);
}

#[test]
fn rights_are_kept_and_new_files_have_those_of_the_umask() {
    let folder = TempDir::new().unwrap();
    let old = folder.path().join("old");
    for rights in [0o664, 0o600, 0o640] {
        fs::write(&old, "old").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(rights)).unwrap();
        generate(&old).success();
        assert_eq!((mode(&old), fs::read_to_string(&old).unwrap()), (rights, text()));
    }
    for (umask, rights) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let line = format!("umask {umask}; rm -f new; $SPARQ generate Once -n 2 -q -o new");
        assert!(shell(&line, folder.path()).status.success());
        assert_eq!(mode(&folder.path().join("new")), rights, "umask {umask}");
    }
    // Another name of the same file keeps being one.
    let other = folder.path().join("other");
    fs::hard_link(&old, &other).unwrap();
    fs::write(&old, "old").unwrap();
    generate(&old).success();
    assert_eq!(fs::read_to_string(&other).unwrap(), text());
    assert_eq!(fs::metadata(&old).unwrap().nlink(), 2);
}

#[test]
fn profiles_and_results_go_where_the_path_says() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text"), "The old man spoke of the river and of the castle. ".repeat(40)).unwrap();
    symlink("profile.json", at("link")).unwrap();
    let tune = |output: &Path| {
        let mut command = sparq();
        command.args(["tune", "--label-channels", "double-sparsity:r=8:k=8", "--window", "64", "--text"]);
        command.arg(at("text")).arg("-o").arg(output).assert()
    };
    tune(&at("link")).success();
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    serde_json::from_slice::<serde_json::Value>(&fs::read(at("profile.json")).unwrap()).unwrap();
    tune(Path::new("/dev/null")).success();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    // Told before the work: neither is there a model at this place.
    for output in [at("no/such/folder"), folder.path().to_owned(), at("new/")] {
        sparq()
            .args(["tune", "-m", "/no/such/model", "--target-kl", "1", "--text"])
            .arg(at("text"))
            .arg("-o")
            .arg(&output)
            .assert()
            .code(1)
            .stderr(predicates::str::contains("cannot write to"));
    }
    let eval = |output: &Path| {
        let mut command = sparq();
        command.args(["eval", "passkey", "-q", "--limit", "1", "--lengths", "300", "--attention", "local"]);
        command.args(["--compression-ratio", "2", "-o"]).arg(output).assert()
    };
    eval(&at("new/")).code(1);
    eval(Path::new("/dev/null")).success();
    let stdout = eval(Path::new("/dev/stdout")).success().get_output().stdout.clone();
    serde_json::from_slice::<serde_json::Value>(&stdout).unwrap();
    symlink("results.json", at("results")).unwrap();
    eval(&at("results")).success();
    assert_eq!(fs::read(at("results.json")).unwrap(), stdout);
    let mut names: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names, ["link", "profile.json", "results", "results.json", "text"].map(at), "nothing else");
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_leaves_no_file_behind() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text");
    fs::write(&file, "precious").unwrap();
    for signal in ["INT", "TERM", "HUP"] {
        // Whoever runs the tests may ignore these signals.
        let mut child = Command::new("env")
            .arg("--default-signal=INT,TERM,HUP")
            .arg(assert_cmd::cargo::cargo_bin("sparq"))
            .args(["generate", "Once", "-n", "100000", "--ignore-eos", "--max-seq-len", "100000", "-q", "-o"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(150));
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success(), "it was still running");
        assert!(!child.wait().unwrap().success());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "after {signal}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn standard_error_that_is_full_or_closed_stops_nothing() {
    let expected = text() + "\n";
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let args = ["generate", "Once upon a time", "-n", "8"];
    let output = program().args(args).stderr(full()).output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stdout).unwrap()),
        (Some(0), expected.clone())
    );
    // A reader that goes before the first note.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program().args(args).stderr(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(0), expected));
    // An error keeps its exit code.
    for args in
        [&["generate", "-m", "/no/such", "x"][..], &["verify", "-m", "/no/such"], &["bench", "--shape", "x"]]
    {
        let output = program().args(args).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    let both = program().args(["inspect"]).stdout(full()).stderr(full()).output().unwrap();
    assert_eq!(both.status.code(), Some(1));
    let output = program().args(["inspect"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
}

#[test]
fn a_reader_that_goes_away_is_success() {
    for args in [&["inspect"][..], &["eval", "list"], &["completions", "bash"]] {
        let mut child = program().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn evaluations_of_one_output_leave_each_other_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("r.json");
    let run = || {
        let mut command = program();
        command.args(["eval", "passkey", "-q", "--limit", "2", "--lengths", "300", "--attention", "local"]);
        command.args(["--compression-ratio", "2", "-o"]).arg(&file).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs: Vec<_> = (0..3).map(|_| run()).collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice::<serde_json::Value>(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_evaluation_that_could_not_begin_is_in_nobodys_way() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("r.json");
    let eval = |lengths: &str| {
        let mut command = sparq();
        command.args([
            "eval",
            "passkey",
            "-q",
            "--limit",
            "1",
            "--attention",
            "local",
            "--compression-ratio",
            "2",
        ]);
        command.args(["--lengths", lengths, "-o"]).arg(&file).assert()
    };
    eval("20").code(1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    eval("300").success();
}
