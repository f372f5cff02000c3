//! `expand[]`: an answer with what was asked for as whole objects instead of ids.

use serde_json::Value;
use sqlx::AnyPool;

use super::{
    WireError,
    answer::Answer,
    objects::{charge, payment_method, seconds},
};
use crate::{ids::IntentId, intents};

pub(super) async fn expanded(
    pool: &AnyPool,
    mut answer: Answer,
    expand: &[String],
) -> Result<Answer, WireError> {
    let wants = |name: &str| expand.iter().any(|wanted| wanted == name);
    let (wants_method, wants_charge) = (wants("payment_method"), wants("latest_charge"));
    if answer.status != 200 || !(wants_method || wants_charge) {
        return Ok(answer);
    }
    let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) else {
        return Ok(answer);
    };
    let is_list = body.get("data").is_some_and(Value::is_array);
    let objects: Vec<&mut Value> = match is_list {
        true => body["data"].as_array_mut().into_iter().flatten().collect(),
        false => vec![&mut body],
    };
    let mut conn = pool.acquire().await?;
    for object in objects {
        let Some(id) = object["id"].as_str().and_then(IntentId::parse) else {
            continue;
        };
        let intent = intents::existing(&mut conn, &id).await?;
        // What the answer says is null stays so: it may be the answer to an earlier request.
        if let (true, Some(token)) = (wants_method, &intent.payment_method)
            && object["payment_method"].is_string()
        {
            let created = seconds(intent.created_ms);
            object["payment_method"] = payment_method::json(&intent.id, token, created);
        }
        if wants_charge && let Some(id) = object["latest_charge"].as_str() {
            object["latest_charge"] = charge::json(&intent, id);
        }
    }
    answer.body = body.to_string();
    Ok(answer)
}
