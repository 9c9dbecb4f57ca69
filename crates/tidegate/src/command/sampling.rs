//! How the next token is chosen and when to stop, as arguments of one call.

use clap::Args;
use protocol::{Limits, Sampling};

/// Without a value, the model's own default holds.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// Most new tokens; without it, what fits the context.
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<u32>,
    /// Do not end before this many tokens.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: u32,
    /// Randomness: 0 always takes the most probable token.
    #[arg(long, short, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep the most probable tokens that together reach P.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Drop tokens less probable than this share of the most probable one.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Divide the score of every token seen so far by X.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract X for every time that a token was written.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Subtract X if a token was written.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Seed of the random draws: same seed, same prompt, same text.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// End where this text appears, without it; may be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not end where the model wants to.
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArguments {
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: Vec::new(),
            seed: self.seed,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            stop: self.stop.clone(),
            stop_token_ids: Vec::new(),
            ignore_eos: self.ignore_eos,
        }
    }
}
