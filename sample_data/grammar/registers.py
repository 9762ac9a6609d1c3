"""The registers: how each kind of text opens, goes on and closes, whatever its topic."""

from sample_data.grammar.engine import words

REGISTERS = {
    "dialogue": words(
        open="""
"^(did|have) you (heard|slept|eaten|called)[ at all]?" asked {A}. "^(barely|no|not yet|of \
course)," said {B}.
"^(hello|good morning|good evening), {B}," said {A}. "^you look (tired|well|busy|pleased)."
"^(come in|sit down|wait a moment)," said {A}. "^(we|I) have (a little|some|no) time (left|to \
talk)."
{A} and {B} were (talking|arguing|waiting) (in the hall|by the door|over tea) at {hour}.
"^(tell me|what is it|what happened), {B}?" (asked|whispered|called) {A}.
""",
        line="""
"^did (you|{name}|the {role}) {vp}?" asked {A}.
"^we have to {vp}," said {B}, "before {hap}."
"^{clause_past}," said {A}. "^{hap:past}, too."
"^the {N} is {qual}," {B} (said|admitted|replied).
"^why not {vp}?" asked {A}. "^because {fact}," said {B}.
"^no, {clause_now}," said {A}, "and the {n} is {qual}."
"^if I were you, I would {vp}," said {B}.
"^have you seen the {adj} {n}?" "^yes, {hap:past}."
"^I {vp:past} (twice|once|all morning)," {A} (said|explained|muttered). "^then {hap:past}."
{B} pointed at the {adj} {n}. "^it is {qual}," (was the answer|said {A}).
"^(careful|look|listen)," said {A}. "^{hap}."
"^how much do we need?" "^{measure}, and {stuff}."
"^was it {cause}?" asked {B}. "^(yes|no|perhaps)," said {A}, "and {hap:past}."
"^(my|our) {role} says that {clause_now}," said {A}.
"^you cannot {vp} without {stuff}," said {B}.
""",
        close="""
"^(well|good|fine)," said {A}, "(until|see you) {soon}."
"^(we|I) will (see|think about it|try again) {soon}," {B} said.
{A} (laughed|nodded|sighed) and (closed the door|walked off|poured more tea).
""",
    ),
    "letter": words(
        open="""
^dear {A}, (thank you for|I was glad of) your (letter|note|card|call) (of {day}|from {P}).
^dear {A}, I hope (you are|this finds you|the family is) (well|rested|in good spirits).
^dear {A}, (forgive|excuse) (the delay|my silence|this short note); (it was a busy week|{month} \
was busy|I was away in {P}|{B} was ill).
^my dear {A}, (it is late|it is quiet here|the month was long|{B} is asleep), and I (think of you \
often|thought of you {when}).
^dear {surname}, I (write|am writing) (as promised|with news|about {day}).
""",
        line="""
^you asked (me|us) about {idea}: {clause_now}.
^you will (laugh|be glad|be sorry) to hear that {clause_past}.
^I have been {vp:ing} (since {day}|all {month}|with {B}).
^do you remember how we {vp:past}?
^{B} sends (love|greetings) and {vp:s} (most days|every {day}).
{story}
{story}
{story}
^please (send|bring|find) me {stuff} or {measure} (if you can|when you have time|before {day}).
^I wish you had seen how {hap:past}.
^next (week|month) I mean to {vp}.
^our old {N} is {qual}, (sad to say|I am glad to report|as you said {when}).
^{B} thinks that {clause_now}, but I (prefer to|would rather) {vp}.
""",
        close="""
^write (soon|when you can). (Yours|With love|As ever), {B}.
^(give|send) my (love|regards) to {name}. Yours, {B}.
^with (best|warm|kind) (wishes|regards) from {P}, {B}.
""",
    ),
    "news": words(
        open="""
{P}, {day}. ^(there was|we have) (news|fresh word) (this|that) (morning|evening).
{P} ({day}): ^a (report|statement) (issued|released) at {hour} (surprised|pleased|worried) \
(many|residents|readers).
^(residents|visitors|officials) in {P} (were|seemed) (surprised|relieved|divided) {when}.
^(a spokesman|a spokeswoman|an official) in {P} (confirmed|denied) (reports|rumours) {when}.
""",
        line="""
{story}
{story}
{story}
{story}
"^{clause_now}," (said|explained) {surname}, a_ {role}[ from {P}].
^according to {surname}, {clause_past}.
^{surname}, a_ {role}, plans to {vp} {soon}.
^officials (blamed|cited|ruled out) {cause}.
^the {adj} {N}, (long|once) {qual}, drew (a crowd|attention|interest) in {P}.
^a (report|survey) (listed|mentions|names) {measure}, {stuff} and {cause}.
^experts (expect|fear|hope) that {clause_now}.
^the {role} who {vp:past} (declined|refused|asked) to be named.
^it is the (first|second|third) time (this year|since {month}|in {P}) that {clause_past}.
""",
        close="""
^(more|further) details are expected {soon}.
^a (second|final|full) report is due {soon}.
^{surname} (declined|was not free) to comment {when}.
""",
    ),
    "howto": words(
        open="""
^this (page|guide|sheet) (explains|shows) the (basics|steps) (for beginners|in {small} parts|one \
by one).
^(read|check) (everything|all the steps) (once|twice) before you (begin|start).
^you will need (about|at least) {small} (hours|days) and (some|a little|much) patience.
^(here is|this is) how {name} (does it|taught us) (in {P}|at home).
""",
        line="""
^(first|to begin|before all else), {vp}.
^(then|next|after that), {vp}.
^(now|at this point|finally) {vp}, and {vp}.
^{vp}, but do not {vp}.
^you will need {stuff}, {measure} and a_ {tool}.
^if {hap}, {vp}.
^while {vp:ing}, (watch|mind|check) the {N}.
^never {vp} before {vp:ing}.
^{vp} until the {n} is {qual}.
^repeat (this|the step) until {hap}.
^remember that {fact}.
^(beginners|many people) {vp} (too early|too late|in the wrong order), and then {hap}.
^step {small}: {vp}.
^use a_ {tool} for the {adj} {n}.
^(should|in case) {cause} (spoil|delay) the (work|result), {vp}.
""",
        close="""
^(that is all|now you are done); (enjoy|admire) the (result|rest of {day}).
^(practice|patience) (helps|pays); try (again|it once more) {soon}.
^(write down|note) what (worked|went wrong) for (next time|{name}).
""",
    ),
    "bulletin": words(
        open="""
^bulletin for {P}, {day}, {hour}.
^(update|notice) number {num}, (valid|issued) {day} at {hour}.
^(summary|outlook) for {day} and {day}, {P} and (surroundings|district).
^attention, all (stations|members|staff) in {P}:
""",
        line="""
^{hap}; {hap}.
^(now|currently): {clause_now}.
^outlook: {hap}, (then|later) {hap}.
^{clause_now} (until|from) {day}.
^reported {when}: {measure}, {stuff}.
^cause: {cause}. ^{role} informed.
^{role:pl} are (asked|advised|reminded) to {vp}.
^(status|state) of the {N}: {qual}.
^the {adj} {n} is {qual}; {hap}.
^(warning|advice): do not {vp} {soon}.
^by {hour}, {hap:past}.
^{surname}, {role}, {vp:s} {soon}.
^expected {soon}: {measure}, {stuff}.
^overnight {hap:past}, and {hap:past}.
""",
        close="""
^next (bulletin|update) at {hour}.
^(end of|this ends the) (bulletin|notice), {day}, {hour}.
^(signed|issued by) {surname}, {P}.
""",
    ),
    "code comment": words(
        aside="# {neutral}",
        turning="# {turn}",
        open="""
# NOTE ({A}, {day}): (keep|leave) this (block|part) (as it is|in this order) (for now|until \
{month}).
# ^(old|new|temporary) (section|version), (see|ask) {A} (before|when) (changing|moving) \
(it|anything).
# ^(part|block) {num}, (added|moved) by {A} {when}.
""",
        line="""
# TODO: {vp}[ before {day}].
# FIXME: {hap}; {cause}?
# ^step {small}: {vp}, then {vp}.
# ^(assumes|expects) that {clause_now}.
# ^(why|because): {fact}.
# ^see the (table|list|note) on {idea}.
# ^do not {vp} here; {hap}.
# ^default: {measure}, {stuff}, {adj} {n}.
# ^returns the {adj} {n}, or nothing when {hap}.
# HACK: {vp} (twice|first|last), since the {N} is {qual}.
# ^{A} {vp:past} here; {B} {vp:past} instead.
# ^if the {n} is {qual}: {vp}.
# ^(input|in): {stuff}, {stuff}; (output|out): {adj} {n}.
""",
        close="""
# ^end of (block|part|section) {num}.
# ^(reviewed|checked) by {B}, {day}.
""",
    ),
    "diary": words(
        open="""
{day}, {date} {month}. ^(woke|up) at {hour}, (cold|tired|cheerful|restless).
{day}. ^(slept|rested) (badly|well|late); (tea|coffee) with {B} at {hour}.
^(today|this day) began (late|badly|quietly), and I (nearly|almost) (stayed in|gave up|forgot \
this book).
^(no|little) (time|wish) to write (today|this evening), (only|just) the (facts|main things).
""",
        line="""
{story}
{story}
{story}
^I {vp:past} (today|at last|with {B}|before {hour}), and {hap:past}.
^(must|should|want to) {vp} {soon}.
^all (morning|afternoon|evening) I {vp:past}.
^{hap:past} (again|while I slept|before I could {vp}).
^dreamt that {hap:past}, of all things.
^{B} says the {N} is {qual}; I (think|fear|hope) not.
^why did I {vp}? Now the {n} is {qual}.
^my {adj} {n} is {qual}, (at last|alas|and I am proud).
^spent {small} hours {vp:ing}.
^learned (a lot|something) about {idea} from the {role}.
^tired from {vp:ing}, but glad of {measure}.
""",
        close="""
^(to bed|lights out) at {hour}.
^(tomorrow|on {day}) I (rest|start early|see {B}).
^(enough|no more) for (today|{day}).
""",
    ),
    "lecture": words(
        open="""
^good (morning|afternoon|evening), and welcome (back|to part {small}|to {P}).
^(today|this week) we (continue|begin) (where we stopped|with a question) {when}.
^(let us|we shall) (begin|start) with (an example|a simple case|something familiar).
^my (name|subject) needs (no|little) introduction (here|in {P}), so (let us begin|I will be brief).
""",
        line="""
{general}
{general}
{general}
{general}
^(consider|imagine|take) a_ {adj} {n} that is {qual}.
^what happens when {hap}? ^{clause_now}.
^{idea} (rests|depends) on {stuff} and on {measure}.
^(students|people) often confuse {stuff} with {stuff}, yet {fact}.
^in {month}, {clause_past}, which taught us about {idea}.
^to understand {idea}, (you|we) must first {vp}.
^every {role} learns that {fact}.
^the {tool} (shows|tells) us whether the {N} is {qual}.
^suppose that {hap}: then {who} must {vp}.
^(note|observe) how {hap} because of {cause}.
""",
        close="""
^(questions|more on this) {soon}, at {hour}.
^we (stop|pause) here and (return|go on) {soon}.
^(read|prepare) (chapter {small}|page {num}|the notes) for {day}.
""",
    ),
    "advert": words(
        open="""
^(only|just) {num} (euros|pounds|dollars) (this {month}|until {day}|for members)!
^(new|back) in {P}: (open|here) (daily|every {day}) from {hour}!
^(tired of waiting|short of time|looking for something new)? (Call|Visit|Ask for) {name} in {P}!
^(for sale|to let|on offer), {P}, (price|terms) by (arrangement|agreement):
""",
        line="""
^(our|every) {role} {vp:s} for you!
^why {vp} when our {role} can {vp}?
^(learn|discover) how to {vp} with {surname}, {role}.
^(includes|comes with) {stuff}, {stuff} and {measure}.
^forget {cause}: (our|the) {adj} {n} is {qual}!
^a_ {adj} {n} and a_ {tool}, (hardly used|as good as new|made in {P}).
^({surname}|our {role}) (offers|gives) (lessons|advice) in {idea} (every {day}|from {hour}).
^(wanted|sought): {role} to {vp}.
^(book|order) {soon} and get {measure} (free|at half price).
^(bring|show) your {N}: we {vp} while you wait!
^trust a_ {role} who {vp:s}.
^our {tool} will {vp} (in {small} minutes|every time|for years)!
^(join|visit) us {place} and {vp}!
^does it worry you when {hap}? ^our {role} {vp:s}.
""",
        close="""
^(call|write to) {name} in {P} (before {day}|today)!
^offer ends {day} at {hour}.
^(open|free) (every {day}|from {hour} to {hour}).
""",
    ),
    "field notes": words(
        open="""
^site {num}, {P}, {hour}. ^(party|team) of {small}, (all well|good mood|one absent).
^notes of {day}, {hour}, (written|taken) (by {A}|in haste|at {P}).
^visit {num} to {P}, with {A} and {B}.
^entry {num}: (left|reached) {P} at {hour}, (on foot|by car|alone).
""",
        line="""
^{hour}: {hap:past}.
^{hour}: {A} {vp:past}; {B} {vp:past}.
^counted {measure}; also {stuff}.
^{adj} {n} {place}, {qual}.
^possible cause: {cause}. ^must {vp}.
^used the {tool}; {hap:past}.
^{hap:past} {place}.
^the {N}, {qual}, (checked|sketched|seen) at {hour}.
^saw how {who} {vp:past}.
^{place}: {stuff}, {stuff}, a_ {adj} {n}.
^(unclear|to check) whether {hap}.
^{clause_past}; {hap:past}.
^no {stuff} today, (only|but) {measure}.
""",
        close="""
^(back|done) at {hour}.
^(next visit|return) {soon}.
^(notebook|page) full; (rest|more) {soon}.
""",
    ),
    "question and answer": words(
        open="""
Q: ^(hello|good day|greetings)[, {surname}], I (am new here|have read this (for years|since \
{month})|write from {P}) and (need|want|hope for|could use) (advice|a second opinion|help).
Q (from {A}, {P}): ^(can you|could someone) (help me|explain this)[, please]?
^(readers|listeners) (ask|asked), {surname} (answers|replied) {when}.
""",
        line="""
Q: ^how do I {vp}? A: ^{vp} first, then {vp}.
Q: ^why is my {n} {qual}? A: ^usually because of {cause}.
Q: ^should I {vp}? A: ^(yes|no), since {fact}.
A: ^{clause_now}, so {vp}.
Q: ^what if {hap}? A: ^(ask a_ {role} to|do not panic and) {vp}.
Q: ^do I need {stuff} for a_ {adj} {n}? A: ^(yes|no), but {vp}.
A: ^(most|many) {role:pl} {vp} and {vp}.
Q: ^my {role} {vp:past}. ^is that normal? A: ^(quite|not at all): {fact}.
A: ^it depends on {idea}; {clause_now}.
Q: ^how much is enough? A: ^{measure}, with {stuff}.
Q: ^I {vp:past}, and now {hap}. A: ^check the {N} and {vp}.
Q: ^who can {vp} in {P}? A: ^any {role} with a_ {tool}.
""",
        close="""
^(thanks|many thanks), {A}. ^(send|bring) in your questions {soon}.
A: ^(good luck|I hope this helps), and (write|ask) again {soon}.
""",
    ),
    "minutes": words(
        open="""
^minutes, {P}, {day}, {hour}. Present: {A}, {B}, {surname} and {small} others.
^the meeting (opened|began) at {hour} with {A} in the chair; (apologies|regrets) from {B}.
^item {small}: ({A}|{surname}) (opened|led) the discussion (briefly|at length).
""",
        line="""
^{surname} reported that {clause_past}.
^it was (agreed|resolved) to {vp} {soon}.
^{A} proposed to {vp}; {B} (objected|agreed|asked for time) because {fact}.
^(item|point) {small}: {idea}. ^{clause_past}.
^{name} (asked|wondered) whether {hap}.
^action: {B} to {vp} (by|before) {day}.
^the {role} (presented|described|requested) {measure} and {stuff}.
^the {adj} {N} was (noted|reported) to be {qual}.
^(concern|surprise) was voiced that {hap:past}.
^the {R} (explained|regretted) that {cause} had (delayed|spoiled) the {n}.
^{name} thanked the {role} who {vp:past}.
^(no one|only {A}|everyone) wished to {vp} {soon}.
{story}
""",
        close="""
^(next meeting|to meet again) {soon} in {P}.
^the meeting (closed|ended) at {hour}.
^(minutes|notes) taken by {B}, {day}.
""",
    ),
}
