//! Label and field selectors.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Label { key: String, values: Vec<String>, inside: bool },
    HasLabel { key: String, there: bool },
    Field { path: String, value: String, equal: bool },
}

/// Everything a list or a watch asks objects to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub namespace: Option<String>,
    terms: Vec<Term>,
}

/// Splits at commas outside of brackets.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
    .collect()
}

fn comparison(term: &str) -> Option<(String, String, bool)> {
    let (at, length, equal) = if let Some(at) = term.find("!=") {
        (at, 2, false)
    } else if let Some(at) = term.find("==") {
        (at, 2, true)
    } else {
        (term.find('=')?, 1, true)
    };
    Some((term[..at].trim().to_owned(), term[at + length..].trim().to_owned(), equal))
}

fn label(term: &str) -> Result<Term, String> {
    if let Some((key, value, inside)) = comparison(term) {
        return Ok(Term::Label { key, values: vec![value], inside });
    }
    if let Some(list) = term.strip_suffix(')') {
        let (head, list) = list.split_once('(').ok_or_else(|| format!("unable to parse {term}"))?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words[..] {
            [key, "in"] => Ok(Term::Label { key: key.to_owned(), values, inside: true }),
            [key, "notin"] => Ok(Term::Label { key: key.to_owned(), values, inside: false }),
            _ => Err(format!("unable to parse {term}")),
        };
    }
    let (key, there) = term.strip_prefix('!').map_or((term, true), |key| (key, false));
    Ok(Term::HasLabel { key: key.trim().to_owned(), there })
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector` of a query.
    pub(crate) fn parse(
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, String> {
        let mut all = Vec::new();
        for term in terms(labels.unwrap_or_default()) {
            all.push(label(term)?);
        }
        for term in terms(fields.unwrap_or_default()) {
            let (path, value, equal) =
                comparison(term).ok_or_else(|| format!("invalid selector: {term}"))?;
            if !["metadata.name", "metadata.namespace", "spec.unschedulable"]
                .contains(&path.as_str())
            {
                return Err(format!("field label not supported: {path}"));
            }
            all.push(Term::Field { path, value, equal });
        }
        Ok(Self { namespace: namespace.map(str::to_owned), terms: all })
    }

    /// Whether an object is wanted.
    pub(crate) fn wants(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let here = self.namespace.as_deref().is_none_or(|ns| metadata["namespace"] == ns);
        here && self.terms.iter().all(|term| match term {
            Term::Label { key, values, inside } => {
                let has = metadata["labels"][key].as_str();
                has.is_some_and(|value| values.iter().any(|one| one == value)) == *inside
            }
            Term::HasLabel { key, there } => metadata["labels"][key].is_string() == *there,
            Term::Field { path, value, equal } => {
                let found = path.split('.').fold(object, |value, part| &value[part]);
                let text = found
                    .as_str()
                    .map_or_else(|| found.as_bool().unwrap_or(false).to_string(), str::to_owned);
                (text == *value) == *equal
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_choose_as_kubernetes_does() {
        let object = json!({
            "metadata": {"name": "foip-a", "namespace": "kube-system", "labels": {"app": "foip", "tier": "x"}},
        });
        let wants = |labels, fields| Selector::parse(None, labels, fields).unwrap().wants(&object);
        for good in [
            "app=foip",
            "app==foip,tier!=y",
            "app in (a, foip)",
            "tier notin (y),app",
            "!gone",
            "gone!=x",
        ] {
            assert!(wants(Some(good), None), "{good}");
        }
        for bad in ["app=other", "app!=foip", "!app", "gone", "app notin (foip)", "gone in (x)"] {
            assert!(!wants(Some(bad), None), "{bad}");
        }
        assert!(wants(None, Some("metadata.name=foip-a,metadata.namespace=kube-system")));
        assert!(!wants(None, Some("metadata.name=foip-b")));
        assert!(Selector::parse(None, None, Some("spec.x=1")).is_err());
        assert!(!Selector::parse(Some("default"), None, None).unwrap().wants(&object));
    }
}
