//! Pictures that a prompt is about, read from files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use protocol::Image;

use super::exit::Misuse;

/// Reads picture files, and their headers: before a model is loaded for what cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Image>> {
    paths.iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> anyhow::Result<Image> {
    let limits = images::Limits::default();
    let named = path.display();
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused, however much there is and whatever kind of file this is.
    let read =
        File::open(path).and_then(|file| file.take(limits.max_bytes as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let advice = "--image takes a PNG, JPEG, WebP or GIF file";
        return Err(Misuse(format!("cannot read the image {named}: {error}; {advice}")).into());
    }
    images::inspect(&bytes, &limits).map_err(|error| Misuse(format!("{named}: {error}")))?;
    Ok(Image { bytes: bytes.into() })
}
