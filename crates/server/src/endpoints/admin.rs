//! `/admin/…`: changes to the running engine, for whoever has the key of `--admin-key`.

use std::sync::Arc;

use std::num::NonZeroU32;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::routing::{get, patch, post};
use protocol::{Adjustment, Status};
use serde_json::{Value, json};

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::failure::Problem;
use crate::fields::{self, Fields};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/admin/status", access: Access::Admin, route: || get(status) },
    Endpoint { path: "/admin/settings", access: Access::Admin, route: || patch(change) },
    Endpoint { path: "/admin/models", access: Access::Admin, route: || get(models) },
    Endpoint { path: "/admin/models/load", access: Access::Admin, route: || post(load) },
    Endpoint { path: "/admin/models/unload", access: Access::Admin, route: || post(unload) },
    Endpoint { path: "/admin/rebalance", access: Access::Admin, route: || post(rebalance) },
    Endpoint { path: "/admin/prefix-cache/clear", access: Access::Admin, route: || post(clear_prefix_cache) },
    Endpoint { path: "/admin/results/clear", access: Access::Admin, route: || post(clear_results) },
    // The name that operators of vLLM know.
    Endpoint { path: "/reset_prefix_cache", access: Access::Admin, route: || post(clear_prefix_cache) },
];

/// How long what a model has accepted may take to end, where nobody says.
const GRACE: Duration = Duration::from_secs(30);

async fn clear_prefix_cache(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    adjust(&app, Adjustment::ClearPrefixCache).await?;
    Ok(Json(json!({ "prefix_cache": "cleared" })))
}

async fn clear_results(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    adjust(&app, Adjustment::ClearResults).await?;
    Ok(Json(json!({ "results": "cleared" })))
}

/// Answers what each device has to do then; what is on its way between two counts where it still is.
async fn rebalance(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    adjust(&app, Adjustment::Rebalance).await?;
    Ok(Json(json!({ "devices": app.inference.status().devices })))
}

async fn status(State(app): State<Arc<App>>) -> Json<Status> {
    Json(app.inference.status())
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "models": app.inference.status().models }))
}

/// Answers once the model takes requests. The loading goes on if the client does not wait for that.
async fn load(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let mut fields = body::read(request, &app.settings).await?;
    let model = named(&mut fields)?;
    nothing_else(fields, "model is all that a model is loaded by.")?;
    adjust(&app, Adjustment::Load { model }).await?;
    Ok(models(State(app)).await)
}

/// Answers once the model has gone. It goes also if the client does not wait for that.
async fn unload(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let mut fields = body::read(request, &app.settings).await?;
    let model = named(&mut fields)?;
    let grace = fields.number("grace_s", 0.0..=86_400.0)?.map_or(GRACE, Duration::from_secs_f32);
    nothing_else(fields, "model and grace_s are all that a model is unloaded by.")?;
    adjust(&app, Adjustment::Unload { model, grace }).await?;
    Ok(models(State(app)).await)
}

fn named(fields: &mut Fields) -> Result<String, Problem> {
    fields.text("model")?.filter(|model| !model.is_empty()).ok_or_else(|| fields.missing("model"))
}

fn nothing_else(fields: Fields, told: &str) -> Result<(), Problem> {
    match fields.rest().keys().next() {
        Some(name) => Err(Problem::unsupported(name, told)),
        None => Ok(()),
    }
}

/// Everything is read before anything is changed.
async fn change(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let mut fields = body::read(request, &app.settings).await?;
    let changes = [queue(&mut fields)?, target(&mut fields)?, results(&mut fields)?];
    let told = "it cannot be changed while the server runs; target_itl_ms, queue_policy, queue_age_step_s, \
                tenant_weights and result_cache_bytes can.";
    nothing_else(fields, told)?;
    for change in changes.into_iter().flatten() {
        adjust(&app, change).await?;
    }
    Ok(Json(json!({ "settings": "changed" })))
}

fn queue(fields: &mut Fields) -> Result<Option<Adjustment>, Problem> {
    let policy = fields.text("queue_policy")?;
    let age_step = fields.number("queue_age_step_s", 0.001..=1e6)?.map(Duration::from_secs_f32);
    let path = fields.path_of("tenant_weights");
    let weights = fields.object("tenant_weights")?.map(Fields::rest).unwrap_or_default();
    let weight = |(tenant, weight): (String, Value)| {
        let found = fields::integer(&weight, format!("{path}.{tenant}"), &(1..=i64::from(u32::MAX)))?;
        Ok((tenant, NonZeroU32::try_from(found as u32).unwrap_or(NonZeroU32::MIN)))
    };
    let weights = weights.into_iter().map(weight).collect::<Result<Vec<_>, Problem>>()?;
    let asked = policy.is_some() || age_step.is_some() || !weights.is_empty();
    Ok(asked.then_some(Adjustment::Queue { policy, age_step, weights }))
}

/// 0 is throughput mode.
fn target(fields: &mut Fields) -> Result<Option<Adjustment>, Problem> {
    let millis = fields.number("target_itl_ms", 0.0..=60_000.0)?;
    Ok(millis.map(|millis| {
        let target = (millis >= 1.0).then(|| Duration::from_millis(millis.round() as u64));
        Adjustment::InterTokenTarget(target)
    }))
}

/// 0 keeps no answers.
fn results(fields: &mut Fields) -> Result<Option<Adjustment>, Problem> {
    let bytes = fields.integer("result_cache_bytes", 0..=i64::MAX)?;
    Ok(bytes.map(|bytes| Adjustment::KeepResults { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) }))
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
    use protocol::Phase;
    use protocol::scripted::Scripted;
    use protocol::status::{DeviceStatus, MemoryPlan, ModelStatus};

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

    async fn change(bench: &Bench, body: &str) -> u16 {
        let written = format!("PATCH /admin/settings\nauthorization: Bearer boss\n\n{body}");
        bench.send(&written).await.status().as_u16()
    }

    #[tokio::test]
    async fn settings_change_all_at_once_or_not_at_all() {
        let bench = bench(Some(Key::of("boss")));
        let body = r#"{"target_itl_ms": 50, "queue_policy": "fair_share", "tenant_weights": {"alice": 4}}"#;
        assert_eq!(change(&bench, body).await, 200);
        assert_eq!(change(&bench, r#"{"target_itl_ms": 0}"#).await, 200);
        assert_eq!(change(&bench, r#"{"result_cache_bytes": 9}"#).await, 200);
        let weights = vec![("alice".to_owned(), NonZeroU32::new(4).unwrap())];
        let expected = [
            Adjustment::Queue { policy: Some("fair_share".to_owned()), age_step: None, weights },
            Adjustment::InterTokenTarget(Some(Duration::from_millis(50))),
            Adjustment::InterTokenTarget(None),
            Adjustment::KeepResults { bytes: 9 },
        ];
        assert_eq!(bench.scripted.ledger().adjustments, expected);
        for wrong in [
            r#"{"target_itl_ms": 70, "max_queue": 3}"#,
            r#"{"target_itl_ms": 70, "tenant_weights": {"alice": 0}}"#,
            r#"{"target_itl_ms": -1}"#,
            r#"{"queue_policy": 3}"#,
        ] {
            assert_eq!(change(&bench, wrong).await, 400, "{wrong}");
        }
        assert_eq!(bench.scripted.ledger().adjustments.len(), 4);
    }

    #[tokio::test]
    async fn what_waits_is_rebalanced_and_devices_are_told() {
        let bench = bench(Some(Key::of("boss")));
        bench.scripted.set_status(|status| {
            let device = |name: &str| DeviceStatus { name: name.to_owned(), queued: 2, ..Default::default() };
            status.devices = ["cpu0", "cpu1"].map(device).to_vec();
        });
        check("admin/rebalance", &bench, "POST /admin/rebalance\nauthorization: Bearer boss").await;
        assert_eq!(bench.scripted.ledger().adjustments, [Adjustment::Rebalance]);
        assert_eq!(bench.send("POST /admin/rebalance\nauthorization: Bearer sk-alice").await.status(), 401);
    }

    #[tokio::test]
    async fn models_are_loaded_unloaded_and_listed() {
        let bench = bench(Some(Key::of("boss")));
        bench.scripted.set_status(|status| {
            let memory = MemoryPlan { weights: 5, kv: 3, workspace: 1, ..MemoryPlan::default() };
            let ready = ModelStatus { id: "tide".into(), phase: Phase::Ready, memory, ..Default::default() };
            status.models = vec![ready, ModelStatus { id: "moon=m".into(), ..Default::default() }];
        });
        let boss = "authorization: Bearer boss";
        check("admin/models", &bench, &format!("GET /admin/models\n{boss}")).await;
        let send = async |path: &str, body: &str| {
            let written = format!("POST /admin/models/{path}\n{boss}\n\n{body}");
            bench.send(&written).await.status().as_u16()
        };
        assert_eq!(send("load", r#"{"model": "moon=m"}"#).await, 200);
        assert_eq!(send("unload", r#"{"model": "tide"}"#).await, 200);
        assert_eq!(send("unload", r#"{"model": "tide", "grace_s": 0.5}"#).await, 200);
        let unload = |grace| Adjustment::Unload { model: "tide".to_owned(), grace };
        let expected = [
            Adjustment::Load { model: "moon=m".to_owned() },
            unload(GRACE),
            unload(Duration::from_millis(500)),
        ];
        assert_eq!(bench.scripted.ledger().adjustments, expected);
        for wrong in ["{}", r#"{"model": ""}"#, r#"{"model": 3}"#, r#"{"model": "m", "dtype": "int8"}"#] {
            assert_eq!(send("load", wrong).await, 400, "{wrong}");
        }
        assert_eq!(send("unload", r#"{"model": "tide", "grace_s": -1}"#).await, 400);
        assert_eq!(bench.scripted.ledger().adjustments.len(), 3);
        let unkeyed = "POST /admin/models/load\nauthorization: Bearer sk-alice\n\n{\"model\": \"m\"}";
        assert_eq!(bench.send(unkeyed).await.status(), 401);
    }

    #[tokio::test]
    async fn without_an_admin_key_nobody_changes_anything() {
        let bench = bench(None);
        let clear = "POST /admin/prefix-cache/clear\nauthorization: Bearer sk-alice";
        check("admin/disabled", &bench, clear).await;
        assert!(bench.scripted.ledger().adjustments.is_empty());
    }
}
