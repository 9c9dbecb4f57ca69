//! The Python package: its wheel in a virtual environment of its own, types, stubs, pytest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::environment::Environment;
use super::{program, succeed};
use crate::floors::metadata;

/// What builds, checks and runs the package.
const REQUIREMENTS: &str = "python/tests/requirements.txt";
/// PyTorch and what it loads when it is imported. What its own list names besides, a machine without a GPU never opens.
const TORCH: &str = "python/tests/requirements-torch.txt";

/// Builds the package, installs it and runs everything.
pub(super) fn run(root: &Path) -> Result<()> {
    let target = metadata(root)?["target_directory"].as_str().map(PathBuf::from);
    let target = target.context("cargo metadata does not say where it builds")?;
    let environment = target.join("python-venv");
    let python = Environment { folder: environment.clone(), whole: REQUIREMENTS, bare: TORCH }.ready(root)?;
    let folder = root.join("python");
    // Without optimising further than tests are: it shares the target folder, and the second time it is there already.
    let mut build = program(&folder, &python, &["-m", "maturin", "develop", "--quiet"]);
    succeed(build.env("VIRTUAL_ENV", &environment).env("CARGO_TARGET_DIR", &target))?;
    let cache = target.join("mypy").display().to_string();
    succeed(&mut program(&folder, &python, &["-m", "mypy", "--cache-dir", &cache]))?;
    let stubtest = ["-m", "mypy.stubtest", "tidegate._tidegate", "--ignore-disjoint-bases"];
    succeed(&mut program(&folder, &python, &stubtest))?;
    let mut pytest = program(&folder, &python, &["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    succeed(pytest.env("PYTHONDONTWRITEBYTECODE", "1"))?;
    println!("not on a free-threaded Python, which few machines have: docs/python.md says how");
    Ok(())
}
