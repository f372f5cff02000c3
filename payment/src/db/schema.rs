//! The tables of payment, as numbered steps from an empty database to today's.
//!
//! They are laid when the database is opened, before anything else here runs; in the gateway the order ledger's own function does it for both.

/// Steps, and the table that counts those that are done.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The table that counts.
    pub table: &'static str,
    /// In order. Each may hold several statements.
    pub steps: &'static [&'static str],
}

/// A step that was released is never edited: a change is a new step.
pub const SCHEMA: Schema = Schema {
    table: "pay_schema",
    steps: &[
        include_str!("steps/0001_tables.sql"),
        include_str!("steps/0002_refunds_by_id.sql"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases of the releases before the first step have these tables, and no step.
    #[test]
    fn the_first_step_creates_only_what_is_missing() {
        let creating = |line: &&str| line.starts_with("CREATE");
        let creates: Vec<_> = SCHEMA.steps[0].lines().filter(creating).collect();
        assert!(creates.len() > 10);
        for line in creates {
            assert!(line.contains("IF NOT EXISTS"), "{line}");
        }
    }
}
