//! Pictures that a prompt is about, read from files.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use protocol::{Clip, Image};

use super::exit::Misuse;

/// Reads picture files, and their headers: before a model is loaded for what cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Image>> {
    paths.iter().map(|path| read_one(path)).collect()
}

/// Reads the frames of videos, each the pictures in a folder by their names.
pub(super) fn read_clips(folders: &[PathBuf], fps: Option<f64>) -> anyhow::Result<Vec<Clip>> {
    folders.iter().map(|folder| Ok(Clip { frames: read(&files(folder)?)?, fps })).collect()
}

/// The files of a folder in the order of their names.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let named = folder.display();
    let most = images::Limits::default().max_frames;
    let advice = "--video-frames takes a folder of images, as 'ffmpeg -i clip.mp4 -vf fps=2 frames/%04d.jpg' makes them";
    let listed = fs::read_dir(folder).and_then(|entries| {
        let paths = entries.take(most + 1).map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<Result<Vec<_>, _>>()
    });
    let mut paths =
        listed.map_err(|error| Misuse(format!("cannot read the folder {named}: {error}; {advice}")))?;
    if paths.is_empty() || paths.len() > most {
        let found = if paths.is_empty() { "no file".to_owned() } else { format!("more than {most} files") };
        return Err(Misuse(format!("{named} holds {found}; {advice}")).into());
    }
    paths.sort();
    Ok(paths)
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
