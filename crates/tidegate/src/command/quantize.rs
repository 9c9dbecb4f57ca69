//! `tidegate quantize`: a model folder with quantised weights, made of one without.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueHint};
use models::quantise::{Existing, QuantisedFolder};
use tensor::Dtype;
use tidegate::settings::Precision;
use tokio::runtime::Builder;

use super::exit::Misuse;
use super::interrupts::Interrupts;
use super::loading::{Bar, Waiting};
use super::{Exit, Talk};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Hugging Face folder of the model.
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// Type of the weights: int8, int4 or int4-g128.
    #[arg(long, value_name = "DTYPE")]
    dtype: Precision,
    /// Folder to write; `tidegate run --model` opens it without --dtype.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Replace the model folder that is there.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: Arguments, talk: Talk) -> anyhow::Result<Exit> {
    // A folder says nothing of activations: weight-only is for whoever opens it.
    let dtype = arguments.dtype;
    if dtype.quantisation().is_none() || dtype.activations() == Dtype::F32 {
        return Err(Misuse("--dtype must be int8, int4 or int4-g128 here".to_owned()).into());
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen().context("cannot listen for Ctrl-C")?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let out = arguments.out.clone();
        let mut writing = tokio::task::spawn_blocking(move || write(&arguments, talk, &told));
        tokio::select! {
            written = &mut writing => written.context("writing broke off")??,
            () = interrupts.next() => {
                // What has been written is taken away before the program ends, unless a second signal does not wait.
                stop.store(true, Ordering::Relaxed);
                tokio::select! {
                    _stopped = writing => {}
                    () = interrupts.next() => {}
                }
                return Ok(Exit::Interrupted);
            }
        }
        if talk == Talk::Normal {
            eprintln!("wrote {}; try: tidegate run --model {}", out.display(), out.display());
        }
        Ok(Exit::Done)
    })
}

fn write(arguments: &Arguments, talk: Talk, stop: &AtomicBool) -> anyhow::Result<()> {
    let Arguments { folder: model, dtype, out, force } = arguments;
    let Some(quantisation) = dtype.quantisation() else { unreachable!("checked before") };
    let existing = if *force { Existing::Replace } else { Existing::Keep };
    let bar = Bar::new(format!("writing {}", out.display()));
    let waiting = Waiting { talk, stop, started: Instant::now(), bar };
    let written = tidegate::quantise(model, QuantisedFolder { quantisation, out, existing }, &waiting);
    waiting.clear();
    Ok(written?)
}
