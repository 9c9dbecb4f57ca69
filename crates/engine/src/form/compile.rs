//! From a form to its template, within bounds of time and size.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use models::tokenizer::Tokenizer;
use protocol::form::on_one_line;
use protocol::{Form, Refusal};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::guide::{Makeup, Stride, Template, plain};
use super::recent::Recent;
use super::vocabulary;

/// Compiled forms that are kept.
const KEPT: usize = 64;

/// Forms that are compiled at once; one that hangs on until its fuel is spent leaves room for another.
const AT_ONCE: usize = 2;

/// The most bytes of a form, as its client wrote it.
const MOST_BYTES: usize = 256 << 10;

/// States of one continuation's lexer, of 1 to 2 kB each.
const LEXER_STATES: usize = 20_000;

/// Compiles forms for one model. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forms {
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    vocabulary: usize,
    ends: Vec<u32>,
    patience: Duration,
    /// Made when the first form comes: it takes a tenth of a second for a large vocabulary, and many never need it.
    factory: OnceLock<Result<ParserFactory, String>>,
    kept: Mutex<Recent<Form, Template>>,
    busy: Arc<Semaphore>,
}

impl Forms {
    /// Forms over the tokens of a model whose logits have `vocabulary` columns and whose texts end with `ends`. A form
    /// that is not ready within `patience` is refused.
    pub(crate) fn new(tokenizer: Tokenizer, vocabulary: usize, ends: Vec<u32>, patience: Duration) -> Self {
        let (factory, busy) = (OnceLock::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let kept = Mutex::new(Recent::new(KEPT));
        Self { shared: Arc::new(Shared { tokenizer, vocabulary, ends, patience, factory, kept, busy }) }
    }

    /// A compiled form, from what is kept or made on a blocking thread.
    ///
    /// # Errors
    /// When the form means nothing, asks for what cannot be enforced, or takes too long.
    pub(crate) async fn template(&self, form: &Form) -> Result<Template, Refusal> {
        if let Some(template) = self.shared.kept().get(form) {
            return Ok(template);
        }
        let kind = form.kind();
        if tokio::runtime::Handle::try_current().is_err() {
            return self.shared.make(form);
        }
        let compile = async {
            let permit = self.shared.busy.clone().acquire_owned().await;
            let (shared, form) = (self.shared.clone(), form.clone());
            let made = tokio::task::spawn_blocking(move || {
                // The permit is given back when the thread is free again, not when nobody waits for it any more.
                let _permit = permit;
                shared.make(&form)
            });
            made.await.unwrap_or_else(|_| Err(invalid(kind, "the grammar compiler failed on it".to_owned())))
        };
        let waited = self.shared.patience;
        tokio::time::timeout(waited, compile).await.unwrap_or(Err(Refusal::FormTimeout { kind, waited }))
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Recent<Form, Template>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, form: &Form) -> Result<Template, Refusal> {
        let refuse = |message: String| invalid(form.kind(), message);
        let grammar = grammar(form).map_err(refuse)?;
        let factory = self.factory.get_or_init(|| self.factory()).as_ref();
        let factory = factory.map_err(|message| refuse(message.clone()))?;
        let mut parser = factory.create_parser(grammar).map_err(|error| refuse(plain(&error)))?;
        for warning in parser.grammar_warnings() {
            tracing::debug!(warning, "a form was compiled with a warning");
        }
        let makeup = if let Form::Regex(_) = form { Makeup::Lexeme } else { Makeup::Rules };
        let template = Template::new(parser, makeup);
        // A form whose first token cannot be found is refused now and not when its turn comes.
        let mut first = template.guide();
        first.look(Stride::Step).map_err(refuse)?;
        if first.allowed().is_none_or(|words| words.iter().all(|word| *word == 0)) {
            return Err(refuse("no text is of this form".to_owned()));
        }
        self.kept().put(form.clone(), template.clone());
        Ok(template)
    }

    fn factory(&self) -> Result<ParserFactory, String> {
        let environment = vocabulary::environment(&self.tokenizer, self.vocabulary, &self.ends)
            .ok_or("the model has no end-of-sequence token, so that no text could end")?;
        let slices = SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| plain(&error))?;
        factory.quiet();
        *factory.limits_mut() =
            ParserLimits { max_lexer_states: LEXER_STATES, verbose_errors: false, ..ParserLimits::default() };
        Ok(factory)
    }
}

/// The form in the library's terms.
fn grammar(form: &Form) -> Result<TopLevelGrammar, String> {
    let fits = |bytes: usize| match bytes {
        0 => Err("it is empty".to_owned()),
        bytes if bytes > MOST_BYTES => {
            Err(format!("expected at most {MOST_BYTES} bytes, found {bytes}; make it shorter"))
        }
        _ => Ok(()),
    };
    match form {
        Form::JsonObject => Ok(TopLevelGrammar::from_json_schema(spaced(json!({"type": "object"}))?)),
        Form::JsonSchema(schema) => {
            fits(schema.to_string().len())?;
            Ok(TopLevelGrammar::from_json_schema(spaced(schema.clone())?))
        }
        Form::Regex(pattern) => {
            fits(pattern.len())?;
            Ok(TopLevelGrammar::from_regex(pattern))
        }
        Form::Choice(texts) => {
            fits(texts.iter().map(String::len).sum())?;
            let quoted: Vec<String> =
                texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
            Ok(TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | "))))
        }
        Form::Grammar(text) => {
            fits(text.len())?;
            Ok(TopLevelGrammar::from_lark(text.clone()))
        }
    }
}

fn spaced(schema: Value) -> Result<Value, String> {
    on_one_line(schema).map_err(|other| format!("expected a schema, which is an object, found {other}"))
}

fn invalid(kind: &'static str, message: String) -> Refusal {
    Refusal::InvalidForm { kind, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bench::tokenizer;
    use crate::tests::model::{END, VOCABULARY};

    #[tokio::test]
    async fn a_form_is_refused_when_it_is_not_ready_in_time_and_kept_when_it_is() {
        let forms = Forms::new(tokenizer(), VOCABULARY, vec![END], Duration::from_millis(1));
        let busy = forms.shared.busy.clone().acquire_many_owned(AT_ONCE as u32).await;
        let refused = forms.template(&Form::JsonObject).await.unwrap_err();
        assert_eq!(refused.to_string(), "the JSON object was not ready after 1 s; make it simpler");
        drop(busy);

        let patient = Forms::new(tokenizer(), VOCABULARY, vec![END], Duration::from_secs(3600));
        let template = patient.template(&Form::JsonObject).await.unwrap();
        assert_eq!(patient.template(&Form::JsonObject).await.unwrap(), template);
        assert_ne!(patient.template(&Form::JsonSchema(json!({"type": "null"}))).await.unwrap(), template);
    }
}
