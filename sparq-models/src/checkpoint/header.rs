//! The header of a safetensors file: names, shapes and places of its tensors.

use std::path::Path;

use safetensors::tensor::Metadata;

use super::content::{Content, NEEDED};
use super::error::{Damage, FileError, SAFETENSORS};
use super::source::Source;
use crate::error::{Error, Result, shown};

/// Length in bytes of the field before the header that holds the header's length.
const LENGTH_BYTES: u64 = 8;

/// The longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// The header, and where the data begin.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) data: u64,
}

/// Reads the header of the file at `path` and checks that the file is as long as it says.
pub(super) fn read(path: &Path, source: &Source) -> Result<Header> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let damaged =
        |damage| Error::from(FileError::Damaged { path: path.to_owned(), form: SAFETENSORS, damage });
    let start = source.start(NEEDED).map_err(failed)?;
    match Content::of(&start) {
        Some(Content::Safetensors) => {}
        Some(content) => return Err(damaged(Damage::Is(content))),
        // A header may begin with blanks; what else it begins with, the reader says.
        None => {}
    }
    let Some(length) = start.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        let detail = format!("it has {} bytes", source.len());
        return Err(damaged(Damage::CutShort { detail }));
    };
    let data = length.saturating_add(LENGTH_BYTES);
    if length > LONGEST {
        let detail = format!("its header would have {length} bytes, and the format allows {LONGEST}");
        return Err(damaged(Damage::Syntax { detail }));
    }
    if data > source.len() {
        let detail = format!("its header takes {length} bytes, and the file has {}", source.len());
        return Err(damaged(Damage::CutShort { detail }));
    }
    let mut header = vec![0; length as usize];
    source.read(LENGTH_BYTES, &mut header).map_err(failed)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        let detail = shown(error);
        damaged(match detail.contains("unknown variant") {
            true => Damage::NumberFormat { detail },
            false => Damage::Syntax { detail: format!("its header: {detail}") },
        })
    })?;
    let end = data.saturating_add(metadata.data_len() as u64);
    match source.len() {
        length if length < end => {
            Err(damaged(Damage::CutShort { detail: format!("it has {length} bytes of {end}") }))
        }
        length if length > end => Err(damaged(Damage::TooLong { bytes: length - end })),
        _ => Ok(Header { metadata, data }),
    }
}
