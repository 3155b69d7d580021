//! Names that look like the one that was asked for.

/// How many names a message shows.
const SHOWN: usize = 5;

/// `did you mean `email`?` where a name is near, else the names there are.
pub(crate) fn among<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<(usize, &str)> = known.into_iter().map(|name| (distance(asked, name), name)).collect();
    known.sort_unstable();
    match known.first() {
        None => "there are none".to_owned(),
        Some((near, name)) if *near <= 1 + asked.chars().count() / 4 => format!("did you mean `{name}`?"),
        Some(_) => {
            let rest = known.len().saturating_sub(SHOWN);
            let names: Vec<&str> = known.iter().take(SHOWN).map(|(_, name)| *name).collect();
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            format!("there are {}{more}", names.join(", "))
        }
    }
}

/// The number of letters to change, add or drop (Levenshtein 1966), without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (to, other) in b.chars().enumerate() {
            let change = diagonal + usize::from(letter != other);
            diagonal = row[to + 1];
            row[to + 1] = change.min(row[to] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{among, distance};

    #[test]
    fn near_names_are_offered_and_far_ones_listed() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("A", "a")), (3, 3, 0));
        assert_eq!(among("emial", ["id", "email"]), "did you mean `email`?");
        assert_eq!(among("password", ["id", "email"]), "there are id, email");
        assert_eq!(among("x", []), "there are none");
        let many = ["aaaaaa", "bbbbbb", "cccccc", "dddddd", "eeeeee", "ffffff", "gggggg"];
        assert!(among("zzzzzz", many).ends_with("and 2 more"));
    }
}
