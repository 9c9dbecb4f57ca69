//! Python environments that are made where they are missing and filled where their requirements have changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{program, succeed};

/// A Python environment.
pub(super) struct Environment<'a> {
    /// Where it is.
    pub(super) folder: PathBuf,
    /// What is installed together with what it depends on.
    pub(super) whole: &'a str,
    /// What is installed as it is, one after the other.
    pub(super) bare: &'a str,
}

impl Environment<'_> {
    /// Its Python, once everything is there.
    pub(super) fn ready(&self, root: &Path) -> Result<String> {
        let python = self.folder.join("bin/python").display().to_string();
        if !is_working(root, &python, &["-m", "pip", "--version"]) {
            ensure_venv(root)?;
            let folder = self.folder.display().to_string();
            succeed(&mut program(root, "python3", &["-m", "venv", "--clear", &folder]))?;
        }
        let read = |list| fs::read_to_string(root.join(list)).with_context(|| format!("cannot read {list}"));
        let bare = read(self.bare)?;
        let wanted = [read(self.whole)?, bare.clone()].concat();
        let installed = self.folder.join("installed-requirements.txt");
        if fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
            let begun = Instant::now();
            let install = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
            succeed(program(root, &python, &install).args(["--requirement", self.whole]))?;
            // One by one and without a cache: all at once, PyTorch's archives lie on the disk three times over.
            for requirement in bare.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                succeed(program(root, &python, &install).args(["--no-cache-dir", "--no-deps", requirement]))?;
            }
            fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
            println!(
                "installed {} and {} in {:.0?}; kept for next time",
                self.whole,
                self.bare,
                begun.elapsed()
            );
        }
        Ok(python)
    }
}

/// Debian keeps `venv` in a package of its own.
fn ensure_venv(root: &Path) -> Result<()> {
    if is_working(root, "python3", &["-c", "import ensurepip, venv"]) {
        return Ok(());
    }
    if !is_root(root) || !is_working(root, "apt-get", &["--version"]) {
        bail!(
            "Python's venv module is missing; install it (on Debian and Ubuntu: apt-get install python3-venv)"
        );
    }
    succeed(&mut program(root, "apt-get", &["update", "--quiet"]))?;
    let mut install = program(root, "apt-get", &["install", "--yes", "--quiet", "python3-venv"]);
    succeed(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root(root: &Path) -> bool {
    program(root, "id", &["-u"]).output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whether a command runs and succeeds; it is not shown.
fn is_working(root: &Path, name: &str, arguments: &[&str]) -> bool {
    let mut command = program(root, name, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
