//! From a request to its events: admission, several prompts joined into one stream, and what the access log learns
//! on the way.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{BoxStream, SelectAll, StreamExt, once};
use protocol::{
    Delta, Event, Failure, FinishReason, GenerateRequest, Generation, Reused, TokenLogprob, Usage,
};
use tokio::sync::watch;

use crate::app::{App, Stage};
use crate::failure::Problem;
use crate::observe::Call;
use crate::spans::Run;
use crate::speech::Begins;

/// The joined events of the generations behind one HTTP request. Choices are numbered through: those of the second
/// prompt come after those of the first. Dropping it cancels them all.
pub(crate) struct Reply {
    /// The model that answers.
    pub(crate) model: String,
    /// Whether the prompt has opened the model's reasoning.
    pub(crate) begins: Begins,
    /// Where the answer to the first prompt comes from, if it was not computed for this request.
    pub(crate) reused: Option<Reused>,
    events: SelectAll<BoxStream<'static, Tagged>>,
    /// Choices per prompt.
    choices: u32,
    /// For each prompt, whether its stream still owes its last event.
    owed: Vec<bool>,
    usage: Usage,
    stage: watch::Receiver<Stage>,
    call: Call,
    admitted: Instant,
    /// For each prompt, how far it is.
    runs: Vec<Run>,
}

/// An event and the place of its prompt in the request. `None` says that this prompt's stream has ended.
type Tagged = (u32, Option<Event>);

/// Asks for every generation, or for none: if one is refused, those before it are cancelled.
pub(crate) async fn admit(
    app: &Arc<App>,
    call: &Call,
    requests: Vec<GenerateRequest>,
    prompt: &'static str,
) -> Result<Reply, Problem> {
    call.charge(&requests[..])?;
    let choices = requests.first().map_or(1, |request| request.choices);
    let mut generations = Vec::with_capacity(requests.len());
    let mut runs = Vec::with_capacity(requests.len());
    for request in requests {
        let overload = app.settings.overload;
        let refused = |refusal| Problem::Refused { refusal, prompt, overload };
        let asked = Instant::now();
        let generation = app.inference.generate(request).await.map_err(refused)?;
        runs.push(Run::generation(asked, generation.reused));
        generations.push(generation);
    }
    let reused = generations.first().and_then(|first| first.reused);
    let begins = match generations.first().is_some_and(|first| first.reasons_at_once) {
        true => Begins::InReasoning,
        false => Begins::AtStart,
    };
    let model = generations.first().map_or_else(String::new, |first| first.model.clone());
    let prompt_tokens = generations.iter().map(|generation| generation.prompt_tokens).sum();
    call.note(|facts| {
        facts.model = Some(model.clone());
        facts.prompt_tokens = prompt_tokens;
    });
    Ok(Reply {
        model,
        begins,
        reused,
        owed: vec![true; generations.len()],
        events: generations.into_iter().zip(0..).map(tagged).collect(),
        choices,
        usage: Usage::default(),
        stage: app.stage.subscribe(),
        call: call.clone(),
        admitted: Instant::now(),
        runs,
    })
}

fn tagged((generation, place): (Generation, u32)) -> BoxStream<'static, Tagged> {
    let ended = once(async move { (place, None) });
    generation.map(move |event| (place, Some(event))).chain(ended).boxed()
}

impl Reply {
    /// The next event. After `Done` or `Failed` there is none; one of them always comes.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        while self.owed.contains(&true) {
            let event = tokio::select! {
                biased;
                tagged = self.events.next() => self.join(tagged),
                () = leaving(&mut self.stage) => Some(Event::Failed(Failure::ShuttingDown)),
            };
            if let Some(event) = event {
                self.observe(&event);
                return Some(event);
            }
        }
        None
    }

    /// Turns one prompt's event into the request's; `None` if the request hears nothing of it.
    fn join(&mut self, tagged: Option<Tagged>) -> Option<Event> {
        let broken =
            || Event::Failed(Failure::Engine { message: "the reply ended without a result".to_owned() });
        let Some((place, event)) = tagged else { return Some(broken()) };
        let first = place * self.choices;
        self.follow(place as usize, event.as_ref());
        match event {
            Some(Event::Delta(delta)) => Some(Event::Delta(Delta { choice: first + delta.choice, ..delta })),
            Some(Event::Finished { choice, reason }) => {
                Some(Event::Finished { choice: first + choice, reason })
            }
            Some(Event::Done { usage, timing }) => {
                self.usage.prompt_tokens += usage.prompt_tokens;
                self.usage.cached_tokens += usage.cached_tokens;
                self.usage.completion_tokens += usage.completion_tokens;
                self.usage.reasoning_tokens += usage.reasoning_tokens;
                self.owed[place as usize] = false;
                (!self.owed.contains(&true)).then_some(Event::Done { usage: self.usage, timing })
            }
            Some(other) => Some(other),
            None => self.owed[place as usize].then(broken),
        }
    }

    /// Notes how far the generation of a prompt is.
    fn follow(&mut self, place: usize, event: Option<&Event>) {
        let Some(run) = self.runs.get_mut(place) else { return };
        match event {
            Some(Event::Started) => run.started(),
            Some(Event::Delta(_)) => run.said(),
            Some(Event::Done { timing, .. }) => run.done(*timing),
            _ => {}
        }
    }

    fn observe(&mut self, event: &Event) {
        let since = self.admitted.elapsed();
        self.call.note(|facts| match event {
            Event::Queued { .. } => {}
            Event::Started => _ = facts.queued.get_or_insert(since),
            Event::Delta(delta) => {
                facts.first_token.get_or_insert(since);
                facts.completion_tokens += delta.tokens.len() as u32;
            }
            Event::Finished { reason, .. } => facts.finish = Some(finish_reason(*reason)),
            Event::Done { usage, timing } => {
                (facts.queued, facts.first_token) = (Some(timing.queued), Some(timing.first_token));
                (facts.prompt_tokens, facts.completion_tokens) =
                    (usage.prompt_tokens, usage.completion_tokens);
            }
            Event::Failed(failure) => facts.code = Some(Problem::Failed(failure.clone()).code()),
        });
        if let Event::Failed(_) = event {
            self.owed.clear();
            self.events.clear();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let runs = std::mem::take(&mut self.runs);
        self.call.note(|facts| facts.runs = runs);
    }
}

pub(crate) async fn leaving(stage: &mut watch::Receiver<Stage>) {
    if stage.wait_for(|stage| *stage == Stage::Leaving).await.is_err() {
        // The server's state is gone, and with it whoever could say that it leaves.
        std::future::pending::<()>().await;
    }
}

/// One choice, whole.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finish: Option<FinishReason>,
}

/// Everything that a reply says, once it has said it. Its size is bounded by the context of the model.
pub(crate) async fn collect(mut reply: Reply, choices: usize) -> Result<(Vec<Choice>, Usage), Problem> {
    let mut collected: Vec<Choice> = Vec::new();
    collected.resize_with(choices, Choice::default);
    while let Some(event) = reply.next().await {
        match event {
            Event::Delta(delta) => {
                if let Some(choice) = collected.get_mut(delta.choice as usize) {
                    choice.text.push_str(&delta.text);
                    choice.logprobs.extend(delta.logprobs);
                }
            }
            Event::Finished { choice, reason } => {
                if let Some(choice) = collected.get_mut(choice as usize) {
                    choice.finish = Some(reason);
                }
            }
            Event::Done { usage, .. } => return Ok((collected, usage)),
            Event::Failed(failure) => return Err(failure.into()),
            Event::Queued { .. } | Event::Started => {}
        }
    }
    Err(Failure::Engine { message: "the reply ended without a result".to_owned() }.into())
}

pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
