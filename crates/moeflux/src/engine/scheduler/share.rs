//! How prompts share the tokens of a step.

/// Gives each prompt with so many tokens left its part of a step of `most` tokens: equal parts, and what short prompts do not
/// need goes to the others. So a short prompt is read at once beside a long one, and the long one advances too.
pub(super) fn share(wants: &[usize], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&index| wants[index]);
    let (mut left, mut parts) = (most, vec![0; wants.len()]);
    for (place, &index) in order.iter().enumerate() {
        let sharers = order.len() - place;
        // Rounded up, so that a step of few tokens serves the shortest rather than nobody.
        parts[index] = wants[index].min(left.div_ceil(sharers));
        left -= parts[index];
    }
    parts
}

#[cfg(test)]
#[path = "../../../../../tests/property.rs"]
pub(super) mod property;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_ones_go_first_and_long_ones_go_on() {
        assert_eq!(share(&[1000, 10, 1000], 100), [45, 10, 45]);
        assert_eq!(share(&[5, 5], 100), [5, 5]);
        assert_eq!(share(&[7, 9, 8], 2), [1, 0, 1]);
        assert_eq!(share(&[], 10), [0; 0]);
    }

    proptest! {
        #![proptest_config(property::config(2000))]

        #[test]
        fn all_is_given_and_no_more(wants in proptest::collection::vec(1_usize..500, 0..20), most in 0_usize..600) {
            let parts = share(&wants, most);
            prop_assert!(parts.iter().zip(&wants).all(|(part, want)| part <= want));
            prop_assert_eq!(parts.iter().sum::<usize>(), most.min(wants.iter().sum()));
        }
    }
}
