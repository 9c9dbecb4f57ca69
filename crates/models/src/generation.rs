//! generation_config.json: sampling defaults and end-of-sequence tokens.

/// What the checkpoint recommends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Ids that end a generation (generation_config.json, else config.json).
    pub eos_token_ids: Vec<u32>,
    /// First token of an empty prompt, if the model has one.
    pub bos_token_id: Option<u32>,
    /// 0 where `do_sample` is false.
    pub temperature: Option<f32>,
    /// Keep the k most probable.
    pub top_k: Option<u32>,
    /// Keep the most probable mass.
    pub top_p: Option<f32>,
    /// Relative floor.
    pub min_p: Option<f32>,
    /// Multiplicative penalty.
    pub repetition_penalty: Option<f32>,
}
