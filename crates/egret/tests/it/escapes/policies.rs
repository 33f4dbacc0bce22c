//! Class 35: policies whose text is an attempt itself. None of them is half understood: nothing starts.

use crate::world::World;

everywhere!(a_policy_that_is_not_understood_starts_nothing);

fn a_policy_that_is_not_understood_starts_nothing(world: &World) {
    let bomb: String = (1..9)
        .map(|n| {
            format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 9].join(", ")
            )
        })
        .collect();
    let texts: [&[u8]; 18] = [
        b"",
        b"version: 2\nallow: [www.example.com]\n",
        b"allow: [www.example.com]\n",
        b"version: 1\nallwo: [www.example.com]\n",
        b"version: 1\nallow: [www.example.com]\nallow: [evil.test]\n",
        b"version: 1\nallow: [{host: www.example.com, prots: [80]}]\n",
        b"version: 1\nallow: [{host: www.example.com, host: evil.test}]\n",
        b"version: 1\nallow:\n  - <<: {host: www.example.com}\n",
        b"version: 1\nallow:\n\t- www.example.com\n",
        b"version: 1\nallow: [www.example.com\n",
        b"version: 1\nallow: ['*']\n",
        b"version: 1\nhost_gateway: on\n",
        b"version: 1\ndefault: off\n",
        b"version: 1\nallow: [\xff.example.com]\n",
        b"version: 1\nallow: [\"www.example.com\\0\"]\n",
        b"version: 1\n---\nversion: 1\nallow: [evil.test]\n",
        &[b"version: 1\nallow: ".as_slice(), &[b'['; 100_000]].concat(),
        &[b"version: 1\na0: &a0 [x]\n".as_slice(), bomb.as_bytes()].concat(),
    ];
    for place in world.places() {
        for text in texts {
            let run = world.run_in(place).policy("");
            let path = format!("{}/policy.yaml", place.user().home());
            world.machine.write(&path, text);
            let outcome = run.client("echo RAN");
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
            assert_eq!(outcome.code(), 125, "{shown}: {outcome:#?}");
            assert!(!outcome.stdout.contains("RAN"), "{shown}: {outcome:#?}");
            assert!(
                outcome.stderr.starts_with("egret: ") || outcome.stderr.starts_with("error"),
                "{shown}: {outcome:#?}"
            );
            assert!(
                !outcome.stderr.contains("panicked"),
                "{shown}: {outcome:#?}"
            );
            outcome.silent();
        }
    }
}
