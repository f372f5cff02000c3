//! The routes. Every path of the host is answered here, unknown ones with Stripe's error.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};

use super::{
    WireError,
    answer::Answer,
    auth::Auth,
    echo::echo,
    expand::expanded,
    objects::{intent, list, payment_method},
    params::{Cancel, Confirm, Create, Page, Retrieve},
    request::Asked,
    response::respond,
};
use crate::{
    config::Config,
    intents::{self, repo, repo::Cursor},
    participant::OrderError,
    saga::{self, Parts, SagaError, Target},
};

struct Wire {
    parts: Arc<Parts>,
    auth: Auth,
    config: Config,
}

type Shared = State<Arc<Wire>>;

/// The payments API, to be served at the root of its host: Stripe's SDKs take a host, not a prefix.
pub(crate) fn router(parts: Arc<Parts>, auth: Auth, config: Config) -> Router {
    // `any` first: it is what answers other methods, and it keeps axum from naming the allowed ones in a header that Stripe does not send.
    // `head`, because `get` would answer it.
    let intents = any(unknown_url).post(create).get(list).head(unknown_url);
    let intent = any(unknown_url).get(retrieve).head(unknown_url);
    let confirm = any(unknown_url).post(confirm);
    let cancel = any(unknown_url).post(cancel);
    let routes = [
        ("/v1/payment_intents", intents),
        ("/v1/payment_intents/{id}", intent.clone()),
        ("/v1/payment_intents/{id}/confirm", confirm.clone()),
        ("/v1/payment_intents/{id}/cancel", cancel.clone()),
        // An empty id matches no `{id}`, and is the id of no intent all the same.
        ("/v1/payment_intents//confirm", confirm),
        ("/v1/payment_intents//cancel", cancel),
    ];
    let mut router = Router::new().route("/v1/payment_intents//", intent);
    for (path, route) in routes {
        // With a slash at the end it is the same path.
        router = router
            .route(&format!("{path}/"), route.clone())
            .route(path, route);
    }
    let wire = Wire {
        parts,
        auth,
        config,
    };
    router.fallback(unknown_url).with_state(Arc::new(wire))
}

async fn create(State(wire): Shared, request: Request) -> Response {
    let work = async |wire: &Wire, asked: Asked| {
        let (form, call) = asked.form(wire.config.body_limit).await?;
        let Create {
            draft,
            confirm,
            expand,
        } = Create::parse(form, &wire.config)?;
        let created = saga::create(&wire.parts, draft, confirm, call).await;
        let reply = created.map_err(|error| match error {
            SagaError::Order(OrderError::NoSuch { reference }) => WireError::NoSuchOrder {
                reference: echo(&reference),
                param: format!("metadata[{}]", wire.config.order_metadata_key),
            },
            other => other.into(),
        })?;
        expanded(&wire.parts.pool, reply.into(), &expand).await
    };
    serve(&wire, request, work).await
}

async fn confirm(State(wire): Shared, request: Request) -> Response {
    let work = async |wire: &Wire, asked: Asked| {
        let id = asked.intent_id()?;
        let (form, call) = asked.form(wire.config.body_limit).await?;
        let confirm = Confirm::parse(form)?;
        // The method that this intent has already is no new one.
        let own = payment_method::id(&id);
        let target = Target::Existing {
            id,
            payment_method: confirm.payment_method.filter(|token| *token != own),
            client_secret: confirm.client_secret,
        };
        let reply = saga::confirm(&wire.parts, target, call).await?;
        expanded(&wire.parts.pool, reply.into(), &confirm.expand).await
    };
    serve(&wire, request, work).await
}

async fn cancel(State(wire): Shared, request: Request) -> Response {
    let work = async |wire: &Wire, asked: Asked| {
        let id = asked.intent_id()?;
        let (form, call) = asked.form(wire.config.body_limit).await?;
        let cancel = Cancel::parse(form)?;
        let reply = saga::cancel(&wire.parts, &id, cancel.reason.as_deref(), &call).await?;
        expanded(&wire.parts.pool, reply.into(), &cancel.expand).await
    };
    serve(&wire, request, work).await
}

async fn retrieve(State(wire): Shared, request: Request) -> Response {
    let work = async |wire: &Wire, asked: Asked| {
        let id = asked.intent_id()?;
        let read = Retrieve::parse(asked.query()?)?;
        let pool = &wire.parts.pool;
        let shown = {
            let mut conn = pool.acquire().await?;
            intents::existing(&mut conn, &id).await?
        };
        shown.check_secret(read.client_secret.as_deref())?;
        let answer = Answer::ok(intent::json(&shown).to_string());
        expanded(pool, answer, &read.expand).await
    };
    serve(&wire, request, work).await
}

async fn list(State(wire): Shared, request: Request) -> Response {
    let work = async |wire: &Wire, asked: Asked| {
        let page = Page::parse(asked.query()?)?;
        let answer = read_page(wire, &page).await?;
        expanded(&wire.parts.pool, answer, &page.expand).await
    };
    serve(&wire, request, work).await
}

async fn unknown_url(State(wire): Shared, request: Request) -> Response {
    let work = async |_: &Wire, asked: Asked| Err(asked.unknown_url());
    serve(&wire, request, work).await
}

/// What all routes have in common: who asks is checked, and whatever comes of it leaves with Stripe's headers.
async fn serve(
    wire: &Wire,
    request: Request,
    work: impl AsyncFnOnce(&Wire, Asked) -> Result<Answer, WireError>,
) -> Response {
    let parts = &wire.parts;
    let asked = Asked::new(request, parts.ids.id("req_", parts.now()));
    let (headers, uri) = (asked.head.headers.clone(), asked.head.uri.clone());
    let request_id = asked.id.clone();
    let result = match asked.check(&wire.auth) {
        Ok(()) => work(wire, asked).await,
        Err(error) => Err(error),
    };
    let answer = result.unwrap_or_else(|error| {
        let answer = error.answer();
        if answer.status >= 500 {
            tracing::error!(%error, request_id, path = uri.path(), "payment request failed");
        }
        answer
    });
    if answer.is_replayed {
        parts.metrics.idempotent_replays.increment(1);
    }
    respond(answer, &headers, &request_id)
}

async fn read_page(wire: &Wire, page: &Page) -> Result<Answer, WireError> {
    let mut conn = wire.parts.pool.acquire().await?;
    let at = match &page.cursor {
        None => None,
        Some(cursor) => {
            let param = match cursor {
                Cursor::StartingAfter(_) => "starting_after",
                Cursor::EndingBefore(_) => "ending_before",
            };
            let found = repo::find(&mut conn, cursor.id()).await?;
            let found = found.ok_or_else(|| WireError::NoSuchIntent {
                id: cursor.id().to_string(),
                param: Some(param),
            })?;
            Some((cursor, found))
        }
    };
    let at = at.as_ref().map(|(cursor, intent)| (*cursor, intent));
    let created_ms = (
        page.created.0.saturating_mul(1000),
        page.created.1.saturating_mul(1000).saturating_add(999),
    );
    // One more than asked for says whether there are more.
    let mut found = repo::page(&mut conn, at, created_ms, page.limit + 1).await?;
    let wanted = usize::try_from(page.limit).expect("a limit is 1 to 100");
    let has_more = found.len() > wanted;
    if has_more && matches!(page.cursor, Some(Cursor::EndingBefore(_))) {
        // The page ends at the cursor, so what is too much is at its far end.
        found.remove(0);
    }
    found.truncate(wanted);
    Ok(Answer::ok(list::intents(&found, has_more).to_string()))
}
