//! `GET /v1/models` and `GET /v1/models/{id}`: what can be asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use protocol::{ModelCard, Refusal, Task};
use serde::Serialize;

use super::{Access, Endpoint};
use crate::app::App;
use crate::failure::Problem;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/v1/models", access: Access::Client, route: || get(list) },
    // Ids such as `Qwen/Qwen3-0.6B` hold slashes, which clients encode or not.
    Endpoint { path: "/v1/models/{*id}", access: Access::Client, route: || get(retrieve) },
];

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    max_model_len: u32,
    architecture: Architecture,
}

#[derive(Serialize)]
struct Architecture {
    family: String,
    dtype: String,
    parameters: u64,
    vocabulary: u32,
    /// Whether conversations are understood, or only text to be continued.
    chat: bool,
    /// What the model can be asked to do.
    tasks: Vec<Task>,
    /// Width of its vectors, if it embeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    input_modalities: [&'static str; 1],
    output_modalities: Vec<&'static str>,
}

impl From<ModelCard> for Model {
    fn from(card: ModelCard) -> Self {
        Self {
            id: card.id,
            object: "model",
            created: card.created,
            owned_by: "tidegate",
            max_model_len: card.context,
            architecture: Architecture {
                family: card.family,
                dtype: card.dtype,
                parameters: card.parameters,
                vocabulary: card.vocabulary,
                chat: card.chat,
                input_modalities: ["text"],
                output_modalities: card.tasks.iter().map(modality).collect(),
                tasks: card.tasks,
                dimensions: card.dimensions,
            },
        }
    }
}

fn modality(task: &Task) -> &'static str {
    match task {
        Task::Generate => "text",
        Task::Embed => "embeddings",
        Task::Score => "scores",
    }
}

async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    let data = app.inference.models().into_iter().map(Model::from).collect();
    Json(ModelList { object: "list", data })
}

async fn retrieve(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Model>, Problem> {
    let models = app.inference.models();
    let near = models.iter().map(|card| card.id.clone()).take(8).collect();
    let found = models.into_iter().find(|card| card.id == id);
    let unknown = Refusal::UnknownModel { model: id, near };
    let overload = app.settings.overload;
    let card = found.ok_or(Problem::Refused { refusal: unknown, prompt: "model", overload })?;
    Ok(Json(card.into()))
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use super::*;
    use crate::testing::{Bench, check};

    fn bench() -> Bench {
        let card = |id: &str, tasks: &[Task]| ModelCard {
            id: id.to_owned(),
            family: "qwen3".to_owned(),
            context: 2048,
            vocabulary: 4096,
            parameters: 3_000_000,
            dtype: "bf16".to_owned(),
            chat: tasks.contains(&Task::Generate),
            tasks: tasks.to_vec(),
            dimensions: tasks.contains(&Task::Embed).then_some(384),
            reasoning: None,
            calls: None,
            created: 1_700_000_000,
        };
        Bench::over(Scripted::with_models(vec![
            card("tide", &[Task::Generate]),
            card("Qwen/Qwen3-0.6B", &[Task::Generate]),
            card("all-MiniLM-L6-v2", &[Task::Embed, Task::Score]),
        ]))
    }

    #[tokio::test]
    async fn listed_and_retrieved_with_and_without_encoded_slashes() {
        check("models/list", &bench(), "GET /v1/models").await;
        check("models/slash", &bench(), "GET /v1/models/Qwen/Qwen3-0.6B").await;
        check("models/encoded_slash", &bench(), "GET /v1/models/Qwen%2FQwen3-0.6B").await;
        check("models/unknown", &bench(), "GET /v1/models/tid").await;
    }
}
