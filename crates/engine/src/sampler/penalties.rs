//! Penalties on tokens seen before, and logit bias.

use std::collections::HashMap;

use super::Settings;

/// Which tokens were seen, and how often in the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    output_counts: HashMap<u32, u32>,
}

impl History {
    /// The history of a prompt whose output is still empty.
    pub fn of_prompt(prompt: &[u32]) -> Self {
        Self { output_counts: prompt.iter().map(|&id| (id, 0)).collect() }
    }

    /// Adds a sampled token.
    pub fn push_output(&mut self, id: u32) {
        *self.output_counts.entry(id).or_default() += 1;
    }
}

/// Applies the repetition penalty once per distinct token of prompt and output, the frequency and presence penalties
/// to tokens of the output, and the bias, in this order. Ids outside the row are ignored.
pub fn penalise(logits: &mut [f32], settings: &Settings, history: &History) {
    if settings.needs_history() {
        for (&id, &count) in &history.output_counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                let repeated = if *logit < 0.0 {
                    *logit * settings.repetition_penalty
                } else {
                    *logit / settings.repetition_penalty
                };
                let presence = if count > 0 { settings.presence_penalty } else { 0.0 };
                *logit = repeated - settings.frequency_penalty * count as f32 - presence;
            }
        }
    }
    for &(id, bias) in &settings.logit_bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
}
