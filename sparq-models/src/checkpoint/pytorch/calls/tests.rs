use std::io::Write;

use tempfile::NamedTempFile;

use super::super::super::error::FileError;
use super::super::read;
use super::*;
use crate::error::Error;

/// A text as protocol 2 writes it.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn name(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// Two numbers of a storage of this type: storage, offset, shape, stride, gradient, hooks.
fn arguments(storage: &str) -> Vec<u8> {
    let key = if storage == "FloatStorage" { "0" } else { "1" };
    let id = [&b"("[..], &text("storage"), &name("torch", storage), &text(key), &text("cpu"), b"K\x02NtQ"];
    let hooks = [&name("collections", "OrderedDict")[..], b")R"].concat();
    [&id.concat()[..], b"K\x00K\x02\x85K\x01\x85\x89", &hooks].concat()
}

/// A call of `torch._utils`.
fn call(function: &str, arguments: &[&[u8]]) -> Vec<u8> {
    [&name("torch._utils", function)[..], b"(", &arguments.concat(), b"tR"].concat()
}

fn plain() -> Vec<u8> {
    call("_rebuild_tensor_v2", &[&arguments("FloatStorage")])
}

fn marked(mark: &[u8]) -> Vec<u8> {
    call("_rebuild_tensor_v2", &[&arguments("FloatStorage"), mark])
}

/// `{mark: True}`.
fn mark(mark: &str) -> Vec<u8> {
    [&b"}"[..], &text(mark), b"\x88s"].concat()
}

/// A file as PyTorch wrote them before it had archives, with two tensors; `second` builds the second one.
fn legacy(second: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    let system = [&b"\x80\x02}"[..], &text("little_endian"), b"\x88s."].concat();
    let state = [b"\x80\x02}(", &text("first")[..], &plain(), &text("second"), second, b"u."].concat();
    let keys = [b"\x80\x02](", &text("0")[..], b"e."].concat();
    for part in [&start[..], &system, &state, &keys, &2u64.to_le_bytes()] {
        file.write_all(part).unwrap();
    }
    file.write_all(&[1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat()).unwrap();
    file
}

/// The tensor that reading the file is refused for, and its form.
fn refusal(second: &[u8]) -> Option<(String, String)> {
    match read(legacy(second).path()) {
        Ok(tensors) => {
            assert_eq!(tensors.keys().collect::<Vec<_>>(), ["first", "second"]);
            None
        }
        Err(Error::File(FileError::Tensor { tensor, form, .. })) => Some((tensor, form)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn marks_of_a_tensor_are_not_passed_over() {
    let negated =
        Some(("second".to_owned(), "whose numbers are marked as to be negated or conjugated".into()));
    // PyTorch goes by the key alone.
    let off = [&b"}"[..], &text("neg"), b"\x89s"].concat();
    let filled_late = [&b"}q\x05("[..], &text("conj"), b"\x88u0h\x05"].concat();
    for mark in [mark("neg"), mark("conj"), off, filled_late] {
        assert_eq!(refusal(&marked(&mark)), negated);
    }
    let third = [&arguments("FloatStorage")[..], &name("torch", "float32")].concat();
    assert_eq!(refusal(&call("_rebuild_tensor_v3", &[&third, &mark("neg")])), negated);
    let parameter = call("_rebuild_parameter", &[&marked(&mark("neg")), b"\x88}"]);
    assert_eq!(refusal(&parameter), negated);
    let inner = [&b"("[..], &arguments("FloatStorage"), &mark("neg"), b"t"].concat();
    let function = name("torch._utils", "_rebuild_tensor_v2");
    let class = name("torch.nn.parameter", "Parameter");
    let subclass =
        [&name("torch._tensor", "_rebuild_from_type_v2")[..], b"(", &function, &class, &inner, b"}tR"];
    assert_eq!(refusal(&subclass.concat()), negated);
}

#[test]
fn what_means_nothing_is_read() {
    let third = [&arguments("FloatStorage")[..], &name("torch", "float32")].concat();
    let parameter = |function, state: &[u8]| call(function, &[&plain(), b"\x88}", state]);
    for second in [
        plain(),
        marked(b"N"),
        marked(b"}"),
        call("_rebuild_tensor_v3", &[&third]),
        parameter("_rebuild_parameter", b""),
        parameter("_rebuild_parameter_with_state", &mark("neg")),
    ] {
        assert_eq!(refusal(&second), None);
    }
}

#[test]
fn tensors_of_other_forms_are_named() {
    let sparse = call("_rebuild_sparse_tensor", &[&name("torch", "sparse_coo"), b"(", &plain(), b"t"]);
    let meta =
        call("_rebuild_meta_tensor_no_storage", &[&name("torch", "float32"), b"K\x02\x85K\x01\x85\x89"]);
    let third = [&arguments("UntypedStorage")[..], &name("torch", "float8_e4m3fn")].concat();
    for (second, words) in [
        (sparse, "built by `torch._utils._rebuild_sparse_tensor`"),
        (meta, "built by `torch._utils._rebuild_meta_tensor_no_storage`"),
        (call("_rebuild_qtensor", &[&arguments("QInt8Storage")]), "of `torch.QInt8Storage`"),
        (call("_rebuild_tensor_v2", &[&arguments("ComplexFloatStorage")]), "of `torch.ComplexFloatStorage`"),
        (call("_rebuild_tensor_v3", &[&third]), "of `torch.float8_e4m3fn`"),
    ] {
        assert_eq!(refusal(&second), Some(("second".to_owned(), words.to_owned())));
    }
}

#[test]
fn the_pickle_of_an_archive_is_followed() {
    let path = NamedTempFile::new().unwrap().into_temp_path();
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let state = [b"\x80\x02}", &text("w")[..], &marked(&mark("neg")), b"s."].concat();
    for (name, content) in [("model/data.pkl", &state[..]), ("model/data/0", &[0; 8])] {
        archive.start_file(name, stored).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    let error = Error::from(match read(&path) {
        Err(Error::File(error)) => error,
        other => panic!("{other:?}"),
    });
    assert!(error.to_string().contains("holds tensor `w` in a form that is not read"), "{error}");
    assert!(error.hint().unwrap().contains("plain tensors"));
}
