//! `/admin/…`: changes to the running engine, for whoever has the key of `--admin-key`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use protocol::Adjustment;
use serde_json::{Value, json};

use super::{Access, Endpoint};
use crate::app::App;
use crate::failure::Problem;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/admin/prefix-cache/clear", access: Access::Admin, route: || post(clear_prefix_cache) },
    // The name that operators of vLLM know.
    Endpoint { path: "/reset_prefix_cache", access: Access::Admin, route: || post(clear_prefix_cache) },
];

async fn clear_prefix_cache(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    adjust(&app, Adjustment::ClearPrefixCache).await?;
    Ok(Json(json!({ "prefix_cache": "cleared" })))
}

/// Resolves when the change is in effect.
async fn adjust(app: &App, change: Adjustment) -> Result<(), Problem> {
    let overload = app.settings.overload;
    tracing::info!(?change, "the engine is adjusted");
    let adjusted = app.inference.adjust(change).await;
    adjusted.map_err(|refusal| Problem::Refused { refusal, prompt: "", overload })
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use super::*;
    use crate::testing::{Bench, check};
    use crate::{Key, Keys, Settings};

    fn bench(admin_key: Option<Key>) -> Bench {
        let keys = Keys::default().with("alice", Key::of("sk-alice"));
        Bench::with(Scripted::new(), Settings { keys, admin_key, ..Settings::default() })
    }

    #[tokio::test]
    async fn only_the_admin_key_changes_anything() {
        let bench = bench(Some(Key::of("boss")));
        let clear = "POST /admin/prefix-cache/clear\nauthorization: Bearer ";
        check("admin/clear", &bench, &format!("{clear}boss")).await;
        check("admin/wrong_key", &bench, &format!("{clear}sk-alice")).await;
        let alias = "POST /reset_prefix_cache\nauthorization: Bearer boss";
        assert_eq!(bench.send(alias).await.status(), 200);
        assert_eq!(bench.scripted.ledger().adjustments, [const { Adjustment::ClearPrefixCache }; 2]);
    }

    #[tokio::test]
    async fn without_an_admin_key_nobody_changes_anything() {
        let bench = bench(None);
        let clear = "POST /admin/prefix-cache/clear\nauthorization: Bearer sk-alice";
        check("admin/disabled", &bench, clear).await;
        assert!(bench.scripted.ledger().adjustments.is_empty());
    }
}
