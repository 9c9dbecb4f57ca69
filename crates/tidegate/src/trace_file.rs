//! Traces of an engine's work in files: one JSON object a line.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};

use engine::trace::{Entry, Recorder};

use crate::OpenError;

/// Entries that wait for the disk. The engine does not: what comes when so many wait is left out.
const WAITING: usize = 1 << 14;

/// A recorder that writes to a new file, on a thread of its own that ends with it.
///
/// # Errors
/// When the file cannot be made.
pub(crate) fn recorder(path: &Path) -> Result<Recorder, OpenError> {
    let failed = |source| OpenError::Trace { path: path.to_owned(), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    let (sender, entries) = sync_channel(WAITING);
    let name = path.display().to_string();
    let write = move || {
        if let Err(error) = write_all(&mut file, &entries) {
            tracing::warn!(%error, "the trace {name} ends here");
        }
    };
    std::thread::Builder::new().name("tidegate-trace".to_owned()).spawn(write).map_err(failed)?;
    let has_gap = AtomicBool::new(false);
    Ok(Recorder::new(move |entry| {
        if sender.try_send(entry).is_err() && !has_gap.swap(true, Relaxed) {
            tracing::warn!("the trace has gaps: the disk does not keep up, or the file cannot be written");
        }
    }))
}

fn write_all(file: &mut BufWriter<File>, entries: &Receiver<Entry>) -> std::io::Result<()> {
    while let Ok(entry) = entries.recv() {
        write_line(file, &entry)?;
        while let Ok(entry) = entries.try_recv() {
            write_line(file, &entry)?;
        }
        // Nothing else waits: what is known shall be in the file, however the process ends.
        file.flush()?;
    }
    Ok(())
}

fn write_line(file: &mut BufWriter<File>, entry: &Entry) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, entry)?;
    file.write_all(b"\n")
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file cannot be read.
    #[error("the trace cannot be read")]
    Io(#[from] std::io::Error),
    /// A line is not an entry of a trace.
    #[error("line {line} is not an entry of a trace ({source}); give a file that --trace has written")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// All entries of a trace. A last line that was not written to its end is left out.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read_trace(path: &Path) -> Result<Vec<Entry>, TraceError> {
    let mut lines = BufReader::new(File::open(path)?).lines().enumerate().peekable();
    let mut entries = Vec::new();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_str(&line?) {
            Ok(entry) => entries.push(entry),
            Err(_) if lines.peek().is_none() && index > 0 => break,
            Err(source) => return Err(TraceError::Line { line: index + 1, source }),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use engine::trace::Step;

    use super::*;

    #[test]
    fn what_is_recorded_is_read_back() {
        let path = std::env::temp_dir().join(format!("tidegate-trace-{}.jsonl", std::process::id()));
        let entry = |at_us| {
            Entry::Step(Step {
                at_us,
                took_us: 5,
                decode: 1,
                prompt: 2,
                attended: 3,
                vision: 4,
                vision_us: 5,
            })
        };
        let (sender, entries) = sync_channel(WAITING);
        (0..1000).for_each(|at| sender.send(entry(at)).unwrap());
        drop(sender);
        write_all(&mut BufWriter::new(File::create(&path).unwrap()), &entries).unwrap();
        let read = read_trace(&path).unwrap();
        assert_eq!(read, (0..1000).map(entry).collect::<Vec<_>>());

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(read_trace(&path).unwrap().len(), 999, "a torn end costs one entry");
        std::fs::write(&path, text.replacen("took", "look", 1)).unwrap();
        let error = read_trace(&path).unwrap_err().to_string();
        assert!(error.starts_with("line 1 is not an entry of a trace"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}
