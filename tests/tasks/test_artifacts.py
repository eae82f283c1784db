"""What Prefect's pages are told is text, whatever it says."""

from tasks.artifacts import _picture, _plain


def test_names_are_text_in_markdown():
    hostile = "a|b <img src=x onerror=alert(1)> [x](javascript:y)\n# forged \x1b[31m\u202e `c`"
    assert _plain(hostile) == (
        r"a\|b &lt;img src=x onerror=alert\(1\)&gt; \[x\]\(javascript:y\)\\n\# forged "
        r"\\x1b\[31m\\u202e \`c\`"
    )


def test_the_words_of_a_picture_end_in_it():
    assert _picture(b"png", 'x"><script>').startswith('<img alt="x&quot;&gt;&lt;script&gt;" src=')
