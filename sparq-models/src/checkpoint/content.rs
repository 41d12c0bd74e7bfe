//! What a file holds, going by how it begins.

use std::fmt;

/// How a file begins that Git LFS left in place of the real one.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Bytes from the beginning of a file that [`Content::of`] needs at most.
pub(super) const NEEDED: usize = 512;

/// Something that is found under the name of another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Nothing at all.
    Empty,
    /// Zero bytes: room that a download reserved and never filled.
    Zeros,
    /// A web page or another answer of a server in HTML or XML.
    Page,
    /// What Git LFS leaves in place of a file that was not fetched.
    LfsPointer,
    /// Text in UTF-16 or UTF-32.
    Utf16,
    /// UTF-8 behind a byte-order mark.
    ByteOrderMark,
    /// A model in the format of llama.cpp.
    Gguf,
    /// A ZIP archive, which is what PyTorch saves.
    Zip,
    /// A pickle, which is what old versions of PyTorch save.
    Pickle,
    /// A safetensors file.
    Safetensors,
    /// HDF5, which is what TensorFlow and Keras save.
    Hdf5,
    /// An array of NumPy.
    Numpy,
    /// A file that is compressed as a whole.
    Compressed,
    /// A JSON object or list.
    Json,
}

impl Content {
    /// What a file that begins with `start` holds, if it is something known: `start` is the whole file or
    /// its first [`NEEDED`] bytes.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 14] = [
            (LFS_POINTER, Self::LfsPointer),
            (b"GGUF", Self::Gguf),
            (b"lmgg", Self::Gguf),
            (b"tjgg", Self::Gguf),
            (b"PK\x03\x04", Self::Zip),
            (b"PK\x05\x06", Self::Zip),
            (b"\x89HDF", Self::Hdf5),
            (b"\x93NUMPY", Self::Numpy),
            (b"\x1f\x8b", Self::Compressed),
            (b"\x28\xb5\x2f\xfd", Self::Compressed),
            (b"\xfd7zXZ", Self::Compressed),
            (b"\xff\xfe", Self::Utf16),
            (b"\xfe\xff", Self::Utf16),
            (b"\xef\xbb\xbf", Self::ByteOrderMark),
        ];
        if start.is_empty() {
            return Some(Self::Empty);
        }
        if start.iter().all(|&byte| byte == 0) {
            return Some(Self::Zeros);
        }
        // The length of a header may begin like anything else, so this comes first.
        if is_safetensors(start) {
            return Some(Self::Safetensors);
        }
        if let Some(&(_, content)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(content);
        }
        if is_utf16(start) {
            return Some(Self::Utf16);
        }
        match start.trim_ascii_start().first() {
            Some(b'<') => Some(Self::Page),
            Some(b'{' | b'[') => Some(Self::Json),
            _ if start[0] == 0x80 && start.get(1).is_some_and(|&protocol| protocol <= 5) => {
                Some(Self::Pickle)
            }
            _ => None,
        }
    }
}

/// Whether a file begins with the length of a header and the header's first byte.
fn is_safetensors(start: &[u8]) -> bool {
    let length = start.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    length.is_some_and(|length| length < 1 << 32) && start.get(8) == Some(&b'{')
}

/// Whether text begins with two characters of two bytes each: every other byte of plain text is zero then.
fn is_utf16(start: &[u8]) -> bool {
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *start {
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => is_text(a) && is_text(b),
        _ => false,
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::Zeros => "holds nothing but zero bytes",
            Self::Page => "is a web page (HTML or XML)",
            Self::LfsPointer => "is a Git LFS pointer",
            Self::Utf16 => "is text in UTF-16",
            Self::ByteOrderMark => "begins with a byte-order mark",
            Self::Gguf => "is a GGUF file",
            Self::Zip => "is a ZIP archive, as PyTorch saves it",
            Self::Pickle => "is a pickle, as PyTorch saves it",
            Self::Safetensors => "is a safetensors file",
            Self::Hdf5 => "is an HDF5 file, as TensorFlow saves it",
            Self::Numpy => "is an array of NumPy",
            Self::Compressed => "is a compressed file",
            Self::Json => "is a JSON file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_how_they_begin() {
        for (start, content) in [
            (&b""[..], Some(Content::Empty)),
            (&[0; 40], Some(Content::Zeros)),
            (b"version https://git-lfs.github.com/spec/v1\noid", Some(Content::LfsPointer)),
            (b"<!DOCTYPE html>", Some(Content::Page)),
            (b"\n <?xml version=\"1.0\"?>", Some(Content::Page)),
            (b"GGUF\x03\0\0\0", Some(Content::Gguf)),
            (b"PK\x03\x04", Some(Content::Zip)),
            (b"\x80\x02}q", Some(Content::Pickle)),
            (b"\x80\0\0\0\0\0\0\0{\"a\"", Some(Content::Safetensors)),
            (b"\x1f\x8b\0\0\0\0\0\0{\"a\"", Some(Content::Safetensors)),
            (b"{\0\0\0\0\0\0\0 {", Some(Content::Json)),
            (b"\xff\xfe{\0", Some(Content::Utf16)),
            (b"{\0\"\0a\0", Some(Content::Utf16)),
            (b"\0{\0\"\0a", Some(Content::Utf16)),
            (b"\xef\xbb\xbf{}", Some(Content::ByteOrderMark)),
            (b"\x1f\x8b\x08", Some(Content::Compressed)),
            (b"{\"a\": 1}", Some(Content::Json)),
            (b" [1]", Some(Content::Json)),
            (b"Entry not found", None),
            (b"\x80", None),
        ] {
            assert_eq!(Content::of(start), content, "{start:?}");
        }
    }
}
