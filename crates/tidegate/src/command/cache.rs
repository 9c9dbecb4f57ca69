//! `tidegate cache`: the packed weights that are kept on the disk.

use std::io::{Write, stdout};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use models::PackedCache;
use serde_json::json;
use tidegate::settings::{ByteSize, CacheSettings};

use super::exit::Misuse;
use super::{Exit, Talk};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the packed weights that are kept, the last used first.
    List(List),
    /// Remove all packed weights that are kept.
    Clear(Clear),
}

#[derive(Args, Debug)]
struct List {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheSettings,
}

#[derive(Args, Debug)]
struct Clear {
    #[command(flatten)]
    cache: CacheSettings,
}

pub(super) fn run(arguments: &Arguments, talk: Talk) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::List(list) => {
            let cache = opened(&list.cache)?;
            let text = if list.json { as_json(&cache)? } else { as_table(&cache, talk)? };
            stdout().write_all(text.as_bytes())?;
        }
        Action::Clear(clear) => {
            let cache = opened(&clear.cache)?;
            let bytes = cache.clear()?;
            if talk == Talk::Normal {
                eprintln!("removed {} from {}", ByteSize(bytes).approximate(), cache.folder().display());
            }
        }
    }
    Ok(Exit::Done)
}

fn opened(settings: &CacheSettings) -> anyhow::Result<PackedCache> {
    let refused = "there is no cache: it is turned off, or no home folder is known; --cache-dir names one";
    Ok(settings.packed().ok_or_else(|| Misuse(refused.to_owned()))?)
}

fn as_table(cache: &PackedCache, talk: Talk) -> anyhow::Result<String> {
    let entries = cache.entries()?;
    let total = ByteSize(entries.iter().map(|entry| entry.bytes).sum());
    if talk == Talk::Normal {
        let (count, s) = (entries.len(), if entries.len() == 1 { "" } else { "s" });
        eprintln!("{}: {} in {count} file{s}", cache.folder().display(), total.approximate());
    }
    let line = |entry: &models::cache::CacheEntry| {
        let name = entry.path.file_stem().unwrap_or_default().to_string_lossy();
        format!("{:>10}  {:>12}  {name}\n", ByteSize(entry.bytes).approximate(), ago(entry.used))
    };
    Ok(entries.iter().map(line).collect())
}

fn as_json(cache: &PackedCache) -> anyhow::Result<String> {
    let entries = cache.entries()?;
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            let used = entry.used.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            json!({ "path": entry.path.display().to_string(), "bytes": entry.bytes, "used": used })
        })
        .collect();
    let folder = cache.folder().display().to_string();
    Ok(format!("{:#}\n", json!({ "folder": folder, "entries": entries })))
}

/// How long ago that was, in one word and a unit.
fn ago(then: SystemTime) -> String {
    let past = then.elapsed().unwrap_or(Duration::ZERO).as_secs();
    match past {
        0..120 => "just now".to_owned(),
        120..7200 => format!("{} min ago", past / 60),
        7200..172_800 => format!("{} h ago", past / 3600),
        _ => format!("{} days ago", past / 86_400),
    }
}
