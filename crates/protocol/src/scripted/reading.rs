//! Vectors and scores without a model.

use std::sync::Arc;

use super::script::{Cue, Play};
use super::{Inside, Stage};
use crate::{
    EmbedInput, EmbedRequest, Embedding, Embeddings, Event, Failure, GenerateRequest, Measure, Phase, Prompt,
    Refusal, RequestId, ScoreRequest, Scores, Task, Timing, Unserved,
};

/// Width of the vectors: one number for each letter of the alphabet that is not a letter of it, and the letters.
pub(super) const WIDTH: u32 = 27;

/// An accepted request: it is counted as cancelled unless it ends.
struct Accepted {
    stage: Arc<Stage>,
    id: RequestId,
    has_ended: bool,
}

impl Accepted {
    fn end(mut self) {
        self.has_ended = true;
        self.stage.change(|inside| inside.ledger.ended.push(self.id.clone()));
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if !self.has_ended {
            self.stage.change(|inside| inside.ledger.cancelled.push(self.id.clone()));
        }
    }
}

impl Inside {
    /// Admits a request for `task` under the next script, if there is one.
    fn admit_reading(&mut self, model: Option<&str>, task: Task) -> Result<(String, Option<Play>), Refusal> {
        if self.ledger.draining || self.status.phase != Phase::Ready {
            return Err(Refusal::NotReady { reason: "it takes no requests".to_owned() });
        }
        let model = self.model(model, task)?;
        let script = self.scripts.pop_front().or_else(|| self.always.clone());
        let request = GenerateRequest::new("reading", Prompt::Text(String::new()));
        let play = script.map(|script| script.play(&request)).transpose()?;
        Ok((model, play))
    }
}

/// Waits at the gates of a play and fails where it fails.
async fn follow(play: Option<Play>) -> Result<(), Failure> {
    for cue in play.into_iter().flat_map(|play| play.cues) {
        match cue {
            Cue::Gate(gate) => gate.await,
            Cue::Emit(Event::Failed(failure)) => return Err(failure),
            Cue::Emit(_) => {}
        }
    }
    Ok(())
}

/// Admits a request, notes it, and follows its script.
async fn serve(
    stage: &Arc<Stage>,
    (id, model, task): (RequestId, Option<String>, Task),
    note: impl FnOnce(&mut Inside),
) -> Result<String, Unserved> {
    let admitted = stage.change(|inside| {
        let admitted = inside.admit_reading(model.as_deref(), task);
        match &admitted {
            Ok(_) => {
                note(inside);
                inside.ledger.started += 1;
            }
            Err(_) => inside.ledger.refused += 1,
        }
        admitted
    });
    let (model, play) = admitted?;
    let accepted = Accepted { stage: Arc::clone(stage), id, has_ended: false };
    let followed = follow(play).await;
    accepted.end();
    Ok(followed.map(|()| model)?)
}

pub(super) async fn embed(stage: Arc<Stage>, request: EmbedRequest) -> Result<Embeddings, Unserved> {
    assert!(!request.inputs.is_empty(), "{:?} has no inputs", request.id);
    let asked = (request.id.clone(), request.model.clone(), Task::Embed);
    let noted = request.clone();
    let model = serve(&stage, asked, |inside| inside.ledger.embeds.push(noted)).await?;
    let vectors = request.inputs.iter().map(|input| vector(input, request.dimensions)).collect();
    Ok(Embeddings { model, vectors, timing: Timing::default() })
}

pub(super) async fn score(stage: Arc<Stage>, request: ScoreRequest) -> Result<Scores, Unserved> {
    let (queries, documents) = (request.queries.len(), request.documents.len());
    assert!(documents > 0, "{:?} has no documents", request.id);
    assert!(queries == 1 || queries == documents, "{:?} has {queries} queries", request.id);
    let asked = (request.id.clone(), request.model.clone(), Task::Score);
    let noted = request.clone();
    let model = serve(&stage, asked, |inside| inside.ledger.scores.push(noted)).await?;
    let embed = |text: &String| vector(&EmbedInput::Text(text.clone()), None);
    let queries = request.queries.iter().map(embed).cycle();
    let pairs: Vec<_> = queries.zip(request.documents.iter().map(embed)).collect();
    let cosine = |(a, b): &(Embedding, Embedding)| a.values.iter().zip(&b.values).map(|(a, b)| a * b).sum();
    let tokens = pairs.iter().map(|(query, document)| query.tokens + document.tokens).sum();
    let values = pairs.iter().map(cosine).collect();
    Ok(Scores { model, measure: Measure::Cosine, values, tokens, timing: Timing::default() })
}

/// How often each letter occurs, scaled to unit length; a token counts as the letter that its id is of.
fn vector(input: &EmbedInput, dimensions: Option<u32>) -> Embedding {
    let places: Vec<usize> = match input {
        EmbedInput::Text(text) => letters(text),
        EmbedInput::Tokens(ids) => ids.iter().map(|id| *id as usize % WIDTH as usize).collect(),
        EmbedInput::Chat(shown) => {
            let said = shown.chat.messages.iter().filter_map(|message| message.content.as_ref());
            said.flat_map(|content| letters(&content.texts())).collect()
        }
    };
    let mut values = vec![0.0f32; WIDTH as usize];
    values[0] = 1.0;
    places.iter().for_each(|place| values[*place] += 1.0);
    values.truncate(dimensions.unwrap_or(WIDTH) as usize);
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    Embedding { values, tokens: u32::try_from(places.len()).unwrap_or(u32::MAX), is_truncated: false }
}

fn letters(text: &str) -> Vec<usize> {
    text.bytes().map(|byte| place(byte.to_ascii_lowercase())).collect()
}

fn place(byte: u8) -> usize {
    if byte.is_ascii_lowercase() { usize::from(byte - b'a') + 1 } else { 0 }
}
