//! How the command ends, and what it says when it ends badly.

use std::io::{self, ErrorKind};

use engine::EngineError;
use models::ModelError;
use protocol::{Failure, Refusal};
use tensor::TensorError;
use tidegate::OpenError;
use tidegate::settings::SettingsError;

/// Appended to the help.
pub(super) const TABLE: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong use: arguments, settings or prompt
  4    the time given by --timeout passed
  130  interrupted by Ctrl-C";

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    WrongUse,
    TimedOut,
    Interrupted,
}

impl Exit {
    /// What the shell is told.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::WrongUse => 2,
            Self::TimedOut => 4,
            Self::Interrupted => 130,
        }
    }
}

/// The user asked for something that cannot be; the text says what and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// Prints an error for people and chooses the exit code.
pub(super) fn report(error: &anyhow::Error) -> Exit {
    let exit = classify(error);
    // A reader that has closed our standard output has what it wants: that is no error.
    if exit != Exit::Done {
        eprintln!("error: {}", told(error));
    }
    exit
}

/// An error and what led to it, each once: many say themselves what led to them.
pub(super) fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints what is wrong with the command line or a setting; help and version are printed as asked for.
pub(super) fn report_settings(error: SettingsError) -> Exit {
    match error {
        SettingsError::Arguments(error) => {
            let failed = error.use_stderr();
            error.print().ok();
            if failed { Exit::WrongUse } else { Exit::Done }
        }
        error => {
            eprintln!("error: {error}");
            Exit::WrongUse
        }
    }
}

/// Whether the request can never be served as it stands.
fn is_misuse(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::InvalidParameter { .. } | Refusal::ContextLength { .. } | Refusal::Unable { .. }
    )
}

/// Whether another setting, and not another model or machine, is what helps.
fn is_wrong_setting(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Engine(EngineError::Setting { .. })
            | OpenError::Tensor(TensorError::IsaUnavailable { .. })
            | OpenError::Key { .. }
            | OpenError::Model(ModelError::InTheWay { .. } | ModelError::QuantisedAlready { .. })
            | OpenError::NoKeys { .. }
            | OpenError::SameName { .. }
    )
}

fn classify(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && error.kind() == ErrorKind::BrokenPipe
        {
            return Exit::Done;
        }
        if cause.is::<Misuse>()
            || cause.downcast_ref().is_some_and(is_misuse)
            || cause.downcast_ref().is_some_and(is_wrong_setting)
        {
            return Exit::WrongUse;
        }
        if cause.downcast_ref().is_some_and(Failure::is_late) {
            return Exit::TimedOut;
        }
    }
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_led_to_an_error_is_told_once() {
        let source = io::Error::from(ErrorKind::NotFound);
        let error = TensorError::Io { path: "model.safetensors".into(), source };
        assert_eq!(told(&error.into()), "cannot read model.safetensors: entity not found");
        let error = anyhow::anyhow!("the disk is full").context("cannot write the trace");
        assert_eq!(told(&error), "cannot write the trace: the disk is full");
    }

    #[test]
    fn exits() {
        let check = |error: anyhow::Error, exit: Exit| assert_eq!(classify(&error), exit, "{error:#}");
        check(anyhow::anyhow!("no such model"), Exit::Failed);
        check(Misuse("the prompt is empty".into()).into(), Exit::WrongUse);
        check(io::Error::from(ErrorKind::BrokenPipe).into(), Exit::Done);
        check(anyhow::Error::from(io::Error::from(ErrorKind::BrokenPipe)).context("writing"), Exit::Done);
        check(io::Error::from(ErrorKind::NotFound).into(), Exit::Failed);
        check(Failure::DeadlineExceeded.into(), Exit::TimedOut);
        check(Failure::ShuttingDown.into(), Exit::Failed);
        let refusal = Refusal::InvalidParameter { param: "top_p".into(), message: "top_p is above 1".into() };
        check(refusal.into(), Exit::WrongUse);
        check(Refusal::NotReady { reason: "loading".into() }.into(), Exit::Failed);
        check(OpenError::NoKeys { path: "keys".into() }.into(), Exit::WrongUse);
        let model = ModelError::NotAFolder { path: "x".into() };
        check(OpenError::Model(model).into(), Exit::Failed);
    }
}
