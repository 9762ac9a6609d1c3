"""What every topic shares: names, times, clauses built from a topic's words, and neutral \
sentences."""

from sample_data.grammar.engine import words

SHARED = words(
    A="Anna, Tomas, Priya, Henrik, Lucia, Samuel, Mei, Oscar, Nadia, Felix, Ingrid, Yusuf, "
    "Clara, Mateo, Ruth, Gwen, Akira, Paula",
    B="Daniel, Elsa, Jonas, Amara, Victor, Hanna, Leo, Sofia, Marcus, Irene, Pavel, Zoe, Edwin, "
    "Fatima, Hugo, Nora, Rafael, Tessa",
    name="{A}, {A}, {B}, {B}, {surname}",
    surname="Mr Calder, Ms Whitlow, Dr Okafor, Mrs Lindqvist, Mr Ferreira, Ms Tanaka, Dr Novak, "
    "Mrs Abbott, Mr Haddad, Ms Petrova, Mr Doyle, Dr Serrano, Mrs Kimura, Mr Blythe",
    N="{n}",
    R="{role}",
    P="Ellerton, Marsden, Oakham, Fairhaven, Tilbury, Brackley, Whitford, Sedgwick, Colvale, "
    "Dunmore, Larkfield, Penrose",
    small="two, three, four, five, six, seven, eight, nine, ten, eleven, twelve",
    day="Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    month="January, February, March, April, May, June, July, August, September, October, November",
    date="1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, "
    "25, 26, 27, 28",
    hour="one, two, three, four, five, six, seven, eight, nine, ten, eleven, half past {small}",
    when="""
on {day}
last {day}
on {day} (morning|afternoon|evening)
yesterday
(earlier|later) that (day|week)
just before {hour}
around {hour}
{small} (days|weeks|months) ago
in (early|late) {month}
the day before
by {hour}
a little after {hour}
that same (morning|evening|week)
""",
    soon="""
tomorrow
on {day}
next {day}
before {hour}
by {day} (morning|evening)
in {small} (days|weeks)
at {hour}
later this (week|month)
""",
    who="""
the {role}
the {role}
the {R}
the {R}
{name}
our {role}
one {role}
""",
    manner="slowly, with great care, in a hurry, without help, for the first time, once more, as "
    "agreed, almost by accident, rather well, against all advice, without a word, as planned",
    clause_past="""
{who} {vp:past}
{who} {vp:past}
{who} {vp:past}
{hap:past}
{hap:past}
{hap:past}
the [{adj}] {N} was {qual}
the {adj} {n} was {qual}
we {vp:past}
{who}, {manner}, {vp:past}
""",
    clause_now="""
{who} {vp:s}
{hap}
{hap}
the [{adj}] {N} is {qual}
the {adj} {n} is {qual}
{fact}
we {vp}
""",
    story="""
^{clause_past}.
^{when}, {clause_past}.
^{when} {clause_past}, (so|and|but) {clause_past}.
^{clause_past} {when}.
^{clause_past}, (so|and|but|while) {clause_past}.
^after {vp:ing}, {who} {vp:past}.
^because of {cause}, {clause_past}.
^{clause_past} because of {cause}.
^when {hap:past}, {who} {vp:past}.
^although the {n} was {qual}, {clause_past}.
^{who} said that {clause_past}.
^before {vp:ing}, {who} had to {vp}.
^instead of {vp:ing}, {who} {vp:past}.
^it took {small} (tries|attempts|people) to {vp}.
^nobody wanted to {vp}, (though|because) {clause_past}.
^what {who} (needed|wanted|expected) was {measure}, not a_ {adj} {n}.
^{who} was (about|ready|too tired) to {vp} when {hap:past}.
^there was no time to {vp}; {clause_past}.
^if only {who} had not tried to {vp}.
^{who} {vp:past} and then {vp:past}.
^{hap:past}, and that was the end of the {adj} {n}.
^while {who} was {vp:ing}, {hap:past}.
""",
    general="""
^{fact}.
^{fact}[, and {fact}].
^{clause_now}.
^as a rule, {fact}.
^{clause_now} because of {cause}.
^when {hap}, {who} {vp:s}.
^without {stuff}, (no|hardly any) {n} (would last|could work|is worth the trouble).
^the (secret|trick|difficulty|point) of {idea} is to {vp}.
^{who} (always|never|often|rarely) {vp:s} before {vp:ing}.
^{stuff} and {stuff} (matter|count|help) more than a_ {adj} {n}.
^when {hap}, (it is time|it is best|there is no choice but) to {vp}.
^unless {who} {vp:s}, {hap}.
""",
    aside="{neutral}",
    turning="{turn}",
    neutral="""
^nobody (said|asked|thought) much about it (at the time|afterwards|until {day}).
^it was (a long|a short|an ordinary|a strange) (day|week|morning), and (everyone|{name}) was \
(tired|glad|late).
^(perhaps|maybe|no doubt) {name} (will|would) (know|remember|explain) (more|the rest) {soon}.
^{name} (laughed|shrugged|nodded|sighed) and (looked away|said nothing|went on|changed the subject).
^there (is|was) (still|always) (some|a little) doubt about (that|the rest|the date).
^I (may|might|could) be wrong, (of course|but I doubt it|as {name} likes to say).
^(things|matters|plans) (change|differ) from (year to year|one {day} to the next|place to place).
^(all in all|in short|in the end|on the whole), it went (better than|worse than|much as) {name} \
(hoped|feared|expected).
^we (agreed|decided|promised) to (meet|talk|try) again (on {day}|in {month}|{soon}).
^{name} (arrived|left|called|wrote) at {hour}, (as usual|a little late|with a smile|without \
warning).
^(time|patience|luck) (helps|matters|decides) (more often|less) than (we|people) (think|admit).
^some (people|visitors|colleagues) (disagree|agree) (with this|on that point), {name} among them.
^the (rest|remainder|other half) can wait (until {day}|for now|if need be|as far as {name} is \
concerned).
^{name} had (a different|another|no) (opinion|answer|plan)[, as so often].
^(that|this) is (how|why) we (do|did) it (in {P}|here|{when}).
^it (cost|took) more (time|money|effort) than (planned|expected|{name} thought).
^(opinions|reports|memories) (differ|vary) (here|on this), and (so they should|that is fine).
^(ask|tell) {name} if (you are|anyone is) (in doubt|unsure|curious).
^{small} (people|others|friends) were (there|present|waiting) (too|as well|by {hour}).
^{name} (smiled|waited|hesitated) for a (moment|while) before (answering|going on|leaving).
^(so far|until now|for once) (everything|nothing) has gone (wrong|to plan|smoothly).
^the (road|way|walk) (home|back) from {P} was (long|short|pleasant) (enough|as ever).
^(of course|naturally|as ever), (none|not all|most) of this is (new|certain|final).
^{name} (keeps|kept) a (list|copy|record) of (it all|such things) (at home|in {P}|somewhere).
^(a friend|a neighbour|a cousin) of {name} (told|showed) us (as much|the same) (in {month}|{when}).
^(still|even so|all the same), (I am|we are|{name} is) (pleased|content|hopeful).
""",
    turn="""
^but (enough|that is enough) (about|of) that.
^now for (quite another|an entirely different) (subject|matter).
^(meanwhile|elsewhere), something (else|different) (came up|was going on).
^(then|after that) the (talk|conversation) turned to (other|different) things.
^(there is|here is) (one more|another) (matter|thing), (quite unrelated|unlike the first).
""",
)
