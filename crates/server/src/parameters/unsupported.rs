//! Parameters that change what a reply means and that this server cannot honour. Ignoring one would give the client
//! something other than it asked for, so they are refused; the value that asks for nothing is let through.

use serde_json::Value;

use crate::failure::Problem;
use crate::fields::Fields;

/// One parameter: its name, whether a value asks for nothing, and what to tell the client otherwise.
struct Unsupported {
    name: &'static str,
    asks_nothing: fn(&Value) -> bool,
    told: &'static str,
}

const FUNCTIONS: &str = "it is no longer used; send 'tools' and 'tool_choice'.";
const STRUCTURE: &str = "say it as response_format or structured_outputs.";
const TEXT_ONLY: &str = "this server reads and writes text only.";
const SAMPLER: &str = "there is no such sampler; temperature, top_p, top_k and min_p are available.";
const TEMPLATE: &str = "the model's own chat template is used; chat_template_kwargs reach it.";
const TOKEN_IDS: &str = "replies hold text; log-probabilities tell the bytes of every token.";

const fn unsupported(
    name: &'static str,
    asks_nothing: fn(&Value) -> bool,
    told: &'static str,
) -> Unsupported {
    Unsupported { name, asks_nothing, told }
}

const TABLE: &[Unsupported] = &[
    unsupported("functions", empty, FUNCTIONS),
    unsupported("function_call", none_or_auto, FUNCTIONS),
    unsupported("structural_tag", never, STRUCTURE),
    unsupported("grammar", empty, STRUCTURE),
    unsupported("json_schema", empty, STRUCTURE),
    unsupported("regex", empty, STRUCTURE),
    unsupported("ebnf", empty, STRUCTURE),
    unsupported("audio", never, TEXT_ONLY),
    unsupported("modalities", text_modality, TEXT_ONLY),
    unsupported("prediction", never, "the reply is not sped up by a predicted text."),
    unsupported("web_search_options", never, "the model cannot search the web."),
    unsupported("suffix", empty, "the model continues text and cannot fill a gap before a suffix."),
    unsupported("use_beam_search", is_false, "continuations are sampled; there is no beam search."),
    unsupported("length_penalty", is_one, "there is no beam search for it to score."),
    unsupported("early_stopping", is_false, "there is no beam search for it to stop."),
    unsupported("typical_p", is_one, SAMPLER),
    unsupported("tfs_z", is_one, SAMPLER),
    unsupported("top_a", is_zero, SAMPLER),
    unsupported("mirostat", is_zero, SAMPLER),
    unsupported("dry_multiplier", is_zero, SAMPLER),
    unsupported("xtc_probability", is_zero, SAMPLER),
    unsupported("dynatemp_range", is_zero, SAMPLER),
    unsupported("logits_processors", empty, SAMPLER),
    unsupported("allowed_token_ids", empty, "logit_bias can favour or exclude tokens."),
    unsupported("bad_words", empty, "logit_bias can exclude tokens."),
    unsupported("stop_regex", empty, "stop takes plain texts."),
    unsupported("prompt_logprobs", never, "log-probabilities are told for sampled tokens only."),
    unsupported("truncate_prompt_tokens", never, "a prompt that is too long is refused, not cut."),
    unsupported("include_stop_str_in_output", is_false, "the stop text is never part of the reply."),
    unsupported("no_stop_trim", is_false, "the stop text is never part of the reply."),
    unsupported("skip_special_tokens", is_true, "special tokens are never part of the text."),
    unsupported("return_token_ids", is_false, TOKEN_IDS),
    unsupported("return_tokens_as_token_ids", is_false, TOKEN_IDS),
    unsupported("chat_template", empty, TEMPLATE),
    unsupported("documents", empty, TEMPLATE),
    unsupported("continue_final_message", is_false, "the reply is always a new turn."),
    unsupported("mm_processor_kwargs", empty, TEXT_ONLY),
    unsupported("lora_path", empty, "adapters are not available."),
];

/// Refuses the first parameter that would change the reply and cannot be honoured, and takes the rest of them out.
pub(crate) fn refuse_unsupported(fields: &mut Fields) -> Result<(), Problem> {
    for parameter in TABLE {
        let Some(value) = fields.take(parameter.name) else { continue };
        if !(parameter.asks_nothing)(&value) {
            return Err(Problem::unsupported(parameter.name, parameter.told));
        }
    }
    Ok(())
}

fn never(_: &Value) -> bool {
    false
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn is_true(value: &Value) -> bool {
    value == &Value::Bool(true)
}

fn is_false(value: &Value) -> bool {
    value == &Value::Bool(false)
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn none_or_auto(value: &Value) -> bool {
    matches!(value.as_str(), Some("none" | "auto"))
}

fn text_modality(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(|one| one.as_str() == Some("text")))
}
