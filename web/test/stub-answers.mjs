// What the stub says.

export const STORY = `# The lighthouse keeper's clock

Every evening at six, **Ines** climbed the one hundred and twelve steps to wind the clock that nobody else could read. It had no numbers, *only tides*.

"You are late," the clock said one night, which clocks do not usually say.

> A clock that speaks is either very old or very lonely.

She counted the waves, and for the first time in thirty years they did not add up. Somewhere out past the reef, a ship was moving without its lights, and the sea was keeping its secret badly. She took the long brass key from its nail, turned it twice the wrong way, and waited for the tide to come to its senses.

It did, in the end. The ship lit its lamps, the clock cleared its throat, and Ines went down the one hundred and twelve steps to put the kettle on.
`;

export const MARKDOWN = `## Choosing a policy

Three policies, measured on the same trace. See [the paper](https://example.org/paper) or \`docs/reference/streaming.md\`.

| Policy | Hit rate | Read per token | Note |
|:-------|---------:|---------------:|:-----|
| LRU | 81.2 % | 412 MiB | simple |
| LFRU with ghosts | **88.9 %** | 243 MiB | the default |
| Belady | 93.4 % | 145 MiB | knows the future |

1. Read the trace:
   - one line a token,
   - \`layer:expert\` pairs.
2. Replay it:

   \`\`\`rust
   /// The share of experts that were in memory when they were wanted.
   pub fn hit_rate(&self) -> f64 {
       match self.hits + self.misses {
           0 => 0.0, // nothing was asked for, so nothing was missed; a long comment that goes past the edge of the block
           uses => self.hits as f64 / uses as f64,
       }
   }
   \`\`\`
3. Compare.

- [x] measured
- [ ] written down

The rate is \\( h / (h + m) \\). <script>alert(1)</script> and [this](javascript:alert(1)) stay text.

\`\`\`sh
moeflux run path/to/model "Why is the sky blue?" --stats
\`\`\`
`;

export const THOUGHTS = `The user asks for a product. Let me multiply step by step.

- 8 * 7 is 8 * 5 + 8 * 2
- that is 40 + 16

So the answer is 56. I should say it plainly.
`;
