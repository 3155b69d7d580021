//! Filling placeholders: every one must be known, every value must be used.

use crate::error::{CoreResult, Error, ErrorKind};

/// Replaces each `{{name}}` of `template` by its value. Values are not looked into.
///
/// # Errors
/// [`ErrorKind::Config`] naming a placeholder without a value, a value without a placeholder, or one that never ends.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> CoreResult<String> {
    let mut out = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut used = vec![false; values.len()];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, after) = after
            .split_once("}}")
            .ok_or_else(|| Error::new(ErrorKind::Config, "a placeholder of the template begins and does not end"))?;
        let at = values.iter().position(|(known, _)| *known == name).ok_or_else(|| {
            let known: Vec<&str> = values.iter().map(|(known, _)| *known).collect();
            Error::new(ErrorKind::Config, format!("the template has an unknown placeholder `{name}`"))
                .remedy(format!("use one of: {}", known.join(", ")))
        })?;
        used[at] = true;
        out.push_str(values[at].1);
        rest = after;
    }
    out.push_str(rest);
    if let Some(at) = used.iter().position(|used| !used) {
        return Err(Error::new(ErrorKind::Config, format!("the template has no place for `{}`", values[at].0)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn fills_known_places_and_does_not_look_into_values() {
        assert_eq!(fill("<{{a}}|{{b}}>", &[("a", "{{b}}"), ("b", "2")]).unwrap(), "<{{b}}|2>");
    }

    #[test]
    fn refuses_unknown_unused_and_unended_placeholders() {
        for (template, values, named) in
            [("{{x}}{{a}}", [("a", "1")], "`x`"), ("plain", [("a", "1")], "`a`"), ("{{a", [("a", "1")], "not end")]
        {
            let error = fill(template, &values).unwrap_err();
            assert!(error.what().contains(named), "{error:?}");
        }
    }
}
