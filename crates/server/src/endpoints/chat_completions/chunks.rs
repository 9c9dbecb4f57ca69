//! The chat dialect's reply, chunk by chunk.

use std::sync::Arc;

use protocol::{Delta, FinishReason, Usage};

use super::wire::{CALL, Calls, Chunk, ChunkChoice, DeltaTold, Logprobs, ToolCall, told_reason};
use crate::app::App;
use crate::parameters::{Delivery, Parameters};
use crate::speech::{Said, Speech};
use crate::sse::{Chunks, Frames};
use crate::wire::Head;

/// What has been told of a reply.
pub(super) struct ChatChunks {
    app: Arc<App>,
    head: Head,
    delivery: Delivery,
    turns: Vec<Turn>,
}

/// What has been told of one choice.
#[derive(Clone)]
struct Turn {
    speech: Speech,
    /// Whether its first chunk, which names the role, was sent.
    greeted: bool,
    /// Calls that have begun.
    calls: usize,
}

impl ChatChunks {
    /// Nothing was told yet.
    pub(super) fn new(app: Arc<App>, head: Head, speech: Speech, asked: &Parameters) -> Self {
        let turns = vec![Turn { speech, greeted: false, calls: 0 }; asked.choices as usize];
        Self { app, head, delivery: asked.delivery, turns }
    }

    fn chunk(&self, choice: ChunkChoice, frames: &mut Frames) {
        let usage = (self.delivery == Delivery::StreamWithUsage).then_some(None);
        frames.data(&Chunk { head: &self.head, choices: vec![choice], usage });
    }

    fn tell(&self, index: u32, (delta, logprobs): (DeltaTold, Option<Logprobs>), frames: &mut Frames) {
        self.chunk(ChunkChoice { index, delta, logprobs, finish_reason: None }, frames);
    }

    fn greet(&mut self, index: u32, frames: &mut Frames) {
        let turn = self.turns.get_mut(index as usize);
        if turn.is_some_and(|turn| !std::mem::replace(&mut turn.greeted, true)) {
            let delta =
                DeltaTold { role: Some("assistant"), content: Some(String::new()), ..DeltaTold::default() };
            self.tell(index, (delta, None), frames);
        }
    }

    /// The parts of what was said as deltas.
    fn deltas(&mut self, index: u32, said: Vec<Said>) -> Vec<DeltaTold> {
        let Some(turn) = self.turns.get_mut(index as usize) else { return Vec::new() };
        let mut told = |part| match part {
            Said::Answer(text) => DeltaTold { content: Some(text), ..DeltaTold::default() },
            Said::Reasoning(text) => DeltaTold { reasoning_content: Some(text), ..DeltaTold::default() },
            Said::Call { name } => {
                turn.calls += 1;
                let call = ToolCall::named(self.app.fresh_id(CALL), name).at(turn.calls - 1);
                DeltaTold { tool_calls: vec![call], ..DeltaTold::default() }
            }
            Said::Arguments(text) => {
                let call = ToolCall::more(text).at(turn.calls.saturating_sub(1));
                DeltaTold { tool_calls: vec![call], ..DeltaTold::default() }
            }
        };
        said.into_iter().map(&mut told).collect()
    }
}

impl Chunks for ChatChunks {
    fn delta(&mut self, delta: Delta, frames: &mut Frames) {
        self.greet(delta.choice, frames);
        let mut said = Vec::new();
        if let Some(turn) = self.turns.get_mut(delta.choice as usize) {
            turn.speech.push(&delta.text, &mut said);
        }
        let mut deltas = self.deltas(delta.choice, said);
        // Text may be held back for a stop text or a mark while its tokens are told already.
        let mut logprobs = (!delta.logprobs.is_empty()).then(|| delta.logprobs.into());
        if deltas.is_empty() && logprobs.is_some() {
            deltas.push(DeltaTold { content: Some(String::new()), ..DeltaTold::default() });
        }
        for told in deltas {
            self.tell(delta.choice, (told, logprobs.take()), frames);
        }
    }

    fn finished(&mut self, index: u32, reason: FinishReason, frames: &mut Frames) {
        self.greet(index, frames);
        let mut said = Vec::new();
        if let Some(turn) = self.turns.get_mut(index as usize) {
            turn.speech.finish(&mut said);
        }
        for told in self.deltas(index, said) {
            self.tell(index, (told, None), frames);
        }
        let calls = self.turns.get(index as usize).map_or(0, |turn| turn.calls);
        let calls = if calls > 0 { Calls::Some } else { Calls::None };
        let finish_reason = Some(told_reason(reason, calls));
        self.chunk(ChunkChoice { index, delta: DeltaTold::default(), logprobs: None, finish_reason }, frames);
    }

    fn done(&mut self, usage: Usage, frames: &mut Frames) {
        if self.delivery == Delivery::StreamWithUsage {
            frames.data(&Chunk { head: &self.head, choices: Vec::new(), usage: Some(Some(usage.into())) });
        }
    }
}
