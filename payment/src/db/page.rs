//! Long lists, read piece by piece in the order of their ids.

use sqlx::{AnyConnection, Row};

/// After every id of a row here: they begin with the word for their kind.
pub(crate) const LAST_ID: &str = "zzzz";

/// One piece of an ordered list of ids.
pub(crate) struct Page {
    /// Its last id, or where the list was to end.
    pub(crate) up_to: String,
    /// Whether the list ends here.
    pub(crate) is_last: bool,
}

/// Finds where a piece of at most `limit` rows ends.
pub(crate) async fn page_after(
    conn: &mut AnyConnection,
    statement: &'static str,
    after: &str,
    last: &str,
    limit: i64,
) -> Result<Page, sqlx::Error> {
    let ids = sqlx::query(statement).bind(after).bind(last).bind(limit);
    let ids = ids.fetch_all(conn).await?;
    let is_last = (ids.len() as i64) < limit;
    let up_to = match ids.last().filter(|_| !is_last) {
        Some(row) => row.try_get(0)?,
        None => last.to_owned(),
    };
    Ok(Page { up_to, is_last })
}
