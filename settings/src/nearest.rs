//! "Did you mean": the allowed name that is nearest to a wrong one.

/// `must be one of a, b, c (did you mean "b"?)`.
pub fn one_of(found: &str, allowed: &[&str]) -> String {
    let list = allowed.join(", ");
    match nearest(found, allowed) {
        Some(name) => format!("must be one of {list} (did you mean {name:?}?)"),
        None => format!("must be one of {list}"),
    }
}

/// The allowed name that differs least, if it differs in at most a third of its letters.
fn nearest<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    allowed
        .iter()
        .map(|name| (strsim::levenshtein(found, name), *name))
        .filter(|(edits, name)| *edits <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(
            one_of("adress", &["access", "address"]),
            "must be one of access, address (did you mean \"address\"?)"
        );
    }

    #[test]
    fn names_too_far_off_get_no_suggestion() {
        assert_eq!(one_of("zzz", &["address"]), "must be one of address");
    }
}
