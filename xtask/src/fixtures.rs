//! Runs the cases of a folder of recorded references: what transformers computed against what this engine computes.
//!
//! A case is a folder with `expected.json`; the README of the fixtures describes its fields. Nothing here knows the
//! names or sizes of particular cases.

mod batches;
mod case;
mod causal_lm;
mod quantised;
mod qwen3_vl;
mod recorded;
mod report;
mod rig;
mod sampling;
mod sentences;
mod served;
mod text;
mod trace;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use tensor::{Isa, Kernels};

use case::Case;
use report::Check;

/// What to run, and on what.
#[derive(Args)]
pub(crate) struct Options {
    /// A folder of cases, or one case.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The instruction set to compute with: scalar, avx2, avx512, avx512bf16, amx [default: the best of this machine]
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
    /// Compute threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Where Python packages are installed, for cases whose weights come with one [default: those of `.venv`]
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

/// What to compute with.
struct Machine {
    isa: Isa,
    threads: usize,
}

impl Machine {
    fn kernels(&self) -> Arc<dyn Kernels> {
        tensor::kernels(self.isa, self.threads)
    }
}

/// How many groups of fields agreed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: usize,
    missed: usize,
    later: usize,
}

/// Runs every case and prints a line for each group of fields; the exit code is 1 if anything missed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let totals = compare(options)?;
    Ok(if totals.missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn compare(options: &Options) -> Result<Totals> {
    let isa = options.isa.unwrap_or_else(Isa::best).require()?;
    let machine = Machine { isa, threads: options.threads };
    let cases = cases(&options.dir)?;
    let packages = options.packages.clone().or_else(own_packages);
    println!("{} cases of {} with {}", cases.len(), options.dir.display(), machine.kernels().describe());

    let mut totals = Totals::default();
    for dir in &cases {
        let (name, checks) = match Case::open(dir) {
            Ok(case) if SENTENCES.contains(&case.kind.as_str()) => {
                match sentences::model(&case, packages.as_deref()) {
                    Ok(Ok(dir)) => (case.name.clone(), guarded(|| sentences::run(&case, &dir, &machine))),
                    Ok(Err(package)) => {
                        println!(
                            "{:<24} {:<40} left out: pip install {package}, and give --packages",
                            case.name, case.kind
                        );
                        totals.later += 1;
                        continue;
                    }
                    Err(error) => {
                        (case.name.clone(), vec![Check::failed("expected.json", format!("{error:#}"))])
                    }
                }
            }
            Ok(case) => (case.name.clone(), guarded(|| checks(&case, &machine))),
            Err(error) => {
                (dir.display().to_string(), vec![Check::failed("expected.json", format!("{error:#}"))])
            }
        };
        for check in checks.iter().filter(|check| !check.is_empty()) {
            println!("{name:<24} {check}");
            if check.missed() { totals.missed += 1 } else { totals.passed += 1 }
        }
    }
    let Totals { passed, missed, later } = totals;
    println!("{passed} ok, {missed} missed, {later} cases left out");
    ensure!(passed + missed + later > 0, "no case compared anything");
    Ok(totals)
}

/// Kinds whose models read texts and generate nothing.
const SENTENCES: [&str; 2] = ["sentence_embedding", "pair_scores"];

/// The checks of a case.
fn checks(case: &Case, machine: &Machine) -> Result<Vec<Check>> {
    match case.kind.as_str() {
        "causal_lm" => causal_lm::run(case, machine),
        "qwen3_vl" => qwen3_vl::run(case, machine),
        "logit_processors" => sampling::run(case),
        "weight_quantisation" => quantised::run(case, machine),
        other => Err(anyhow!("the kind '{other}' is unknown")),
    }
}

/// The packages that the suite of real clients has installed, if it has run.
fn own_packages() -> Option<PathBuf> {
    let versions = fs::read_dir(".venv/lib").ok()?.filter_map(Result::ok);
    versions.map(|version| version.path().join("site-packages")).find(|packages| packages.is_dir())
}

/// What `run` checked; a panic is a miss, and the other cases go on.
fn guarded(run: impl FnOnce() -> Result<Vec<Check>>) -> Vec<Check> {
    let checks = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    checks.unwrap_or_else(|error| vec![Check::failed("(whole case)", format!("{error:#}"))])
}

/// The folder itself if it is a case, or else its subfolders that are, by name.
fn cases(dir: &Path) -> Result<Vec<PathBuf>> {
    if Case::is_at(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let listing = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut cases: Vec<PathBuf> =
        listing.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| Case::is_at(path)).collect();
    cases.sort();
    ensure!(!cases.is_empty(), "{} holds no case: expected folders with expected.json", dir.display());
    Ok(cases)
}

#[cfg(test)]
mod tests;
