"""Words of four topics: music, theatre, carpentry, chess."""

from sample_data.grammar.engine import words

MUSIC = words(
    role="conductor, violinist, pianist, cellist, composer, drummer, choir master, singer, bass "
    "player, piano tuner, oboist, bandleader, organist",
    n="sonata, melody, chord, symphony, scale, concerto, fugue, quartet, ballad, waltz, hymn, "
    "cadence, bass line, overture, solo, duet, refrain, key change, high note, nocturne",
    adj="slow, lyrical, minor-key, syncopated, soft, unfinished, jazzy, solemn, off-key, "
    "melodic, haunting, lively, choral, baroque",
    qual="out of tune, in a minor key, louder than the strings, marked for the brass, a beat too "
    "fast, hard to sight-read, written for two voices, in triple time, half a tone flat, played "
    "from memory, full of trills, richly scored",
    stuff="sheet music, rhythm, harmony, vibrato, arpeggios, drum rolls, counterpoint, bow "
    "resin, strings, brass, grace notes, scales, sharps and flats, octaves",
    tool="violin, cello, piano, flute, metronome, trumpet, tuning fork, bow, organ, clarinet, "
    "drum kit, double bass, guitar",
    place="in the concert hall, at the rehearsal, in the orchestra pit, on the bandstand, at the "
    "keyboard, in the recording studio, in the choir loft, during the second movement, in the "
    "last bar, before the coda",
    cause="a broken string, a wrong note in the brass, a cracked reed, the slow tempo, a missed "
    "entry, poor pitch, the echo of the hall, a nervous soloist",
    measure="""
{small} bars of the {n}
{num} beats a minute
{small} octaves of {stuff}
a choir of {num} voices
{small} encores
""",
    idea="harmony, tempo, pitch and tuning, the sonata form, counterpoint, sight-reading, "
    "rhythm, phrasing, the art of accompaniment",
    vp="""
tune the {tool} to the (oboe|organ|piano|tuning fork)
rehearse the {adj} {n} {place}
play the {n} on the {tool}
conduct the {n} {place}
compose a_ {adj} {n} for {tool} and {tool}
hum the {n} {place}
practise {stuff} on the {tool} for {small} hours
transpose the {n} into (a major key|another key|D minor|E flat)
sing the {n} with {stuff}
record the {adj} {n} {place}
repeat {small} bars of the {n} {place}
arrange the {n} for {tool} and strings
miss the entry {place}
mark {stuff} in the score of the {n}
accompany the (soprano|choir|tenor|soloist) on the {tool}
hold the high note {place}
strum (three chords|the {n}|a few bars) on the {tool}
count the beats of the {n} aloud
perform the {n} before an audience of {num}
improvise a_ {adj} {n} over the bass line
learn the {n} by ear on the {tool}
""",
    hap="""
the {n} / end (on a soft chord|in a major key|with {stuff})
the {tool} / enter {place}
the orchestra / play the {adj} {n} {place}
the strings // drown out the {tool}
the tempo / slow down {place}
the {n} / return {place}
a string / snap on the {tool}
the choir / hold the last note of the {n}
the {tool} / sound flat {place}
the soloist / rush the {adj} {n}
the {n} / build towards (the coda|a loud chorus|the final chord)
the audience / hum the {n} after the concert
""",
    fact="""
a_ {adj} {n} depends on {stuff} and a steady pulse
the {tool} carries the melody while the {tool} keeps the beat
no {n} survives a_ {tool} that is out of tune
{stuff} / give the {n} its colour
a_ {n} in a minor key sounds (darker|older|sadder)
each {tool} has its own pitch and timbre
""",
)

THEATRE = words(
    role="actor, director, stage manager, playwright, understudy, costume designer, prompter, "
    "film critic, leading lady, lighting technician, usher, set painter, camera operator",
    n="scene, monologue, comedy, curtain, costume, tragedy, matinee, script, premiere, stage "
    "set, farce, close-up, puppet show, final act, trailer, musical number, screenplay, dress "
    "rehearsal",
    adj="dramatic, sold-out, silent, hilarious, opening, tearful, badly lit, experimental, "
    "two-act, wordless, improvised, melodramatic, low-budget, dazzling",
    qual="sold out for weeks, too long by a scene, loved by the critics, under-rehearsed, played "
    "for laughs, set in a hotel bar, cut from the second act, shot in one take, wasted on a "
    "half-empty house, full of plot twists, lit from below, a triumph for the cast",
    stuff="greasepaint, props, stage fright, dialogue, wigs, applause, footlights, masks, cue "
    "cards, scenery, film stock, velvet, rehearsal notes, stage make-up, ticket sales",
    tool="spotlight, trapdoor, camera, prompt book, dressing-room mirror, camera crane, curtain "
    "rope, clapperboard, projector, fly tower, stage door",
    place="on stage, in the wings, backstage, in the dress circle, on the film set, at the box "
    "office, behind the curtain, in the front row, during the interval, in the second act",
    cause="a forgotten line, a jammed curtain, the leading actor's nerves, a cruel review, a "
    "missing prop, poor ticket sales, a late script change, a blown spotlight",
    measure="""
an audience of {num}
{small} curtain calls
{num} lines of dialogue
a cast of {small}
{small} performances of the {n}
""",
    idea="stagecraft, method acting, comic timing, film editing, the use of silence on stage, "
    "lighting, how to write dialogue, the casting of a_ {n}",
    vp="""
rehearse the {n} with {stuff} {place}
direct a_ {adj} {n} about (two sisters|a hangman|a lost letter|a jealous king)
forget {num} lines of dialogue {place}
applaud the {adj} {n} {place}
audition for the (villain|heroine|ghost|butler) in the {n}
paint {stuff} for the {n}
film the {adj} {n} {place}
cue the {tool} {place}
review the {n} for (the Sunday paper|a film magazine|the radio)
sew {stuff} for the {n}
raise the curtain on a_ {adj} {n}
cut (a scene|a subplot|the love scene|the ghost) from the {n}
dim the footlights {place}
bow to an audience of {num} {place}
play the (villain|clown|ghost|widow|king) in the {n}
learn {num} lines of dialogue {place}
sell every seat for the {n}
write a_ {adj} {n} for a cast of {small}
whisper the cue {place}
hang the {tool} {place}
slip on {stuff} {place}
""",
    hap="""
the curtain / fall {place}
the audience / gasp {place}
the {n} / open to an audience of {num}
the lead actor / freeze {place}
the {tool} / fail {place}
the critics // praise the {adj} {n}
the {n} / run for {num} nights
the understudy / take over {place}
the cast / bow before an audience of {num}
the villain / vanish through the trapdoor {place}
the applause / drown the {adj} {n}
the ghost / appear {place}
""",
    fact="""
a_ {adj} {n} lives on timing and {stuff}
no actor likes {stuff} {place}
the {tool} decides what the audience sees
a_ {n} without {stuff} needs a brave cast
every {n} changes once an audience has watched it
a good prompter saves the {n} {place}
""",
)

CARPENTRY = words(
    role="carpenter, joiner, cabinet maker, apprentice joiner, timber merchant, wood turner, "
    "sawyer, chair maker, boat carpenter, restorer, toolmaker, floor layer",
    n="joint, plank, drawer, table leg, cabinet, shelf, door frame, bench, dovetail, tenon, "
    "chest of drawers, veneer, stool, window sash, oak panel, hinge, rocking chair, staircase, "
    "beam, bookcase",
    adj="planed, crooked, varnished, oak, pine, warped, dovetailed, solid, sanded, polished, "
    "walnut, hand-cut, wobbly, mitred",
    qual="square at every corner, rough to the touch, glued and clamped, out of true, ready for "
    "varnish, split along the grain, cut a hair too short, smooth as glass, held by two screws, "
    "loose at the joint, made of seasoned ash, stained dark",
    stuff="glue, varnish, sawdust, sandpaper, beech offcuts, screws, nails, linseed oil, "
    "shavings, seasoned oak, plywood, wax, walnut veneer, dowels, wood filler",
    tool="chisel, plane, handsaw, mallet, clamp, lathe, vice, set square, spokeshave, drill, "
    "router, marking gauge, workbench, band saw",
    place="in the workshop, on the workbench, at the sawmill, in the vice, under the clamps, at "
    "the lathe, along the grain, in the timber yard, behind the drill press, at the joiner's shop",
    cause="a blunt chisel, damp timber, a knot in the wood, a slipped clamp, poor glue, a "
    "crooked saw cut, shrinking boards, a worn drill bit",
    measure="""
{num} millimetres of {adj} board
{small} coats of {stuff}
{small} planks of seasoned oak
{num} brass screws
a gap of {small} millimetres
""",
    idea="joinery, the grain of the wood, sharpening, finishing with oil, steam bending, "
    "dovetail joints, how timber moves, choosing boards",
    vp="""
plane the {n} (flat|to a thin edge|with the grain) {place}
saw the {adj} {n} to length with a_ {tool}
glue the {n} and +tighten the {tool}
sand the {n} with (coarse|fine|worn) sandpaper {place}
carve a (leaf|shell|small bird|name) into the {n}
cut a_ {adj} joint {place}
varnish the {n} with {small} coats of {stuff}
sharpen the {tool} (on the stone|before each cut|with a strop)
fit the {n} to the {adj} (frame|carcass|drawer|lid)
drill {small} holes in the {n}
hammer {stuff} into the {n}
turn a (bowl|chair leg|spindle|knob) on the lathe
clamp the {n} {place}
measure the {n} twice with the {tool}
sweep up {stuff} {place}
rub {stuff} into the {adj} {n}
mark the {n} with a (knife|pencil|gauge) {place}
stack {small} planks of {adj} wood {place}
rebuild the {adj} {n} with {stuff}
hang the {n} on {small} brass hinges
bend the {n} over steam
""",
    hap="""
the {n} / split {place}
the {tool} / slip and +scratch the {n}
the glue / set (overnight|too fast|under the clamps)
the {n} / warp (in the damp|near the stove|after {small} weeks)
{stuff} / cover the floor of the workshop
the {n} / stick in its frame
the {tool} / bite into the {adj} {n}
the varnish / dry {place}
the {n} / fit (at last|like a glove|after {small} strokes of the plane)
the boards // shrink away from the {n}
the {adj} {n} / creak under its own weight
the saw / jam {place}
""",
    fact="""
a_ {adj} {n} needs {stuff} and a sharp {tool}
the grain of the {n} should run towards the {tool}
{stuff} cannot hide a_ {adj} joint
timber shrinks across the grain and spoils any {n}
a blunt {tool} tears the {n}
no {n} stays square without good joints
""",
)

CHESS = words(
    role="grandmaster, club player, arbiter, challenger, opening expert, team captain, blitz "
    "player, world champion, chess coach, endgame specialist, simul guest, tournament director",
    n="gambit, endgame, opening, sacrifice, knight fork, passed pawn, bishop pair, checkmate, "
    "sideline, defence, rook lift, queen trade, blunder, combination, pawn storm, mating net, "
    "draw offer, pin",
    adj="sharp, unsound, quiet, forced, brilliant, drawn, closed, tactical, premature, risky, "
    "positional, double-edged, lost, winning",
    qual="winning for White, drawn with best play, refuted by a check, lost on time, better for "
    "Black, full of traps, a pawn down, safe after castling, based on zugzwang, known from the "
    "databases, decided by the clock, one move from mate",
    stuff="tempo, time trouble, pawns, doubled rooks, counterplay, opening theory, open files, "
    "rating points, pressure on the king, exchanges, weak squares, a bishop and pawn, tactics",
    tool="chess clock, score sheet, opening book, board, engine line, scorebook, puzzle book, "
    "pairing list",
    piece="knight, bishop, rook, queen, king, pawn",
    place="on the queenside, in the centre, on the back rank, on the long diagonal, in round "
    "{small}, at board {small}, in the rook ending, on the seventh rank, at the chess club, on "
    "the kingside",
    cause="a hanging {piece}, time pressure, a weak back rank, a pinned {piece}, a careless pawn "
    "push, a missed check, poor preparation, an exposed king",
    measure="""
{small} pawns for the {piece}
{num} moves
{small} points from {small} rounds
a rating of {num} hundred
{small} minutes on the clock
""",
    idea="pawn structure, the initiative, king safety, the opposition in king endings, opening "
    "preparation, calculating forced lines, the bishop against the knight, when to castle",
    vp="""
sacrifice the {piece} for {stuff}
castle (early|by hand|under fire|at last) and +attack {place}
pin the {piece} against the {piece}
offer a draw after {num} moves
trap the {adj} {piece} {place}
push the pawn to the (fifth|sixth|seventh) rank
calculate a_ {adj} {n} {place}
trade the {piece} for the {piece}
resign {place} after {num} moves
play a_ {adj} {n} with (Black|White)
blunder the {piece} in time trouble
promote a pawn {place}
fork the {piece} and the {piece}
defend the {n} with {stuff}
prepare the {adj} {n} with the {tool}
double the rooks {place}
give check with the {piece} and +win {stuff}
press the clock and +note the {n}
analyse the {n} {place}
refuse the {adj} {n} and +keep {stuff}
march the king {place}
""",
    hap="""
the {piece} / land {place}
the {n} / lead to a_ {adj} {n}
Black / lose the {piece} {place}
White / gain {stuff} {place}
the clock / run down {place}
the {piece} / fall {place}
the {n} / open lines against the king
the {adj} {n} / win {small} pawns for the {piece}
the players // shake hands after {num} moves
a pawn / queen {place}
the {piece} / return to defend the {piece}
the attack / fade {place}
""",
    fact="""
a_ {piece} {place} is worth {small} pawns
a_ {adj} {n} gives White {stuff}
two bishops beat a_ {piece} in an open position
the {n} fails to {cause}
every {n} ends in {stuff} or mate
a king in the centre invites a_ {adj} {n}
""",
)
