use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::*;
use place::Place;

#[test]
fn paths_stand_for_descriptors_devices_and_files() {
    let of = |path: &str| place::of(Path::new(path)).unwrap();
    let own = format!("/proc/{}/fd/7", std::process::id());
    for (path, number) in
        [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/3", 3), ("/proc/self/fd/4", 4), (&own, 7)]
    {
        assert_eq!(of(path), Place::Descriptor(number));
    }
    assert_eq!(of("/dev/null"), Place::Special("/dev/null".into()));
    assert_eq!(of("/no/such/file"), Place::File("/no/such/file".into()));
    assert_eq!(of("/proc/1/fd/1"), Place::Special("/proc/1/fd/1".into()));
    for path in ["", "/", ".", "..", "/dev", "/no/such/"] {
        place::of(Path::new(path)).unwrap_err();
    }
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink("/dev/fd/1", &link).unwrap();
    assert_eq!(place::of(&link).unwrap(), Place::Descriptor(1));
}

#[test]
fn a_file_changes_at_the_end_and_nothing_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let names = || -> Vec<PathBuf> {
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut sink = Sink::open(Some(&file)).unwrap();
    sink.write("one ").unwrap();
    assert!(names().is_empty() && sink.is_file() && !Sink::replaces(&file));
    sink.write("two").unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "one two");
    let mut sink = Sink::open(Some(&file)).unwrap();
    sink.write("lost").unwrap();
    drop(sink);
    assert_eq!(fs::read_to_string(&file).unwrap(), "one two");
    write(&file, "new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(names(), std::slice::from_ref(&file));
    assert!(Sink::replaces(&file) && !Sink::replaces(Path::new("/dev/null")));
}
