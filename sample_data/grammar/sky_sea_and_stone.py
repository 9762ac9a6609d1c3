"""Words of four topics: astronomy, sailing, geology, railways."""

from sample_data.grammar.engine import words

ASTRONOMY = words(
    role="astronomer, observer, stargazer, telescope operator, cosmologist, planetarium guide, "
    "astrophysicist, amateur observer, mission scientist, comet hunter, survey leader",
    n="comet, galaxy, nebula, pulsar, meteor shower, planet, moon, asteroid, red giant, eclipse, "
    "supernova, star cluster, crater, binary star, exoplanet, quasar, white dwarf, constellation",
    adj="distant, faint, bright, spinning, newborn, dusty, variable, icy, ringed, massive, "
    "glowing, remote, dying, spiral",
    qual="visible to the naked eye, brighter than Venus, billions of years old, behind the dust, "
    "low above the horizon, fading night by night, wobbling in its orbit, rich in helium, in the "
    "final stage of its life, receding from us, too faint for the camera, tidally locked",
    stuff="starlight, cosmic dust, dark matter, hydrogen gas, infrared light, gravity, solar "
    "wind, radio waves, interstellar gas, meteorites, X-rays, photons, helium",
    tool="telescope, spectrograph, star chart, radio dish, camera on the telescope, space probe, "
    "observatory dome, mirror, eyepiece, sky survey, orbiter",
    body="Saturn, Mars, Jupiter, Neptune, Mercury, Orion, Andromeda, Sirius, Europa",
    place="beyond the orbit of {body}, near {body}, at the observatory, in the southern sky, in "
    "the spiral arm, above the dome, across the Milky Way, on the far side of the moon, in the "
    "asteroid belt, at the edge of the solar system",
    cause="the pull of {body}, moonlight, dust in the spiral arm, light pollution, a solar "
    "flare, a passing satellite, the expansion of the universe, a crack in the mirror",
    measure="""
{num} light years
{small} new moons of {body}
{num} faint galaxies
a redshift of {small}
{small} hours of exposure
""",
    idea="stellar evolution, the age of the universe, the orbit of {body}, how planets form, "
    "black holes, the scale of the galaxy, dark energy, the phases of the moon",
    vp="""
observe the {n} (through thin cloud|at midnight|with the naked eye) near {body}
point the {tool} at {body}
discover a_ {adj} {n} {place}
measure the (mass|brightness|spin|orbit|redshift) of the {n}
photograph the {n} {place}
calculate the orbit of a_ {adj} {n}
catalogue {num} {n:pl} (in one night|for the survey|by hand)
detect {stuff} {place}
compare the spectrum of the {n} with that of {body}
track the {adj} {n} past {body}
align the {tool} with {body}
study {stuff} {place}
map the craters of {body}
estimate the distance to the {n} at {num} light years
confirm the position of the {n} {place}
send a probe to {body}
see {body} rise above (the dome|the horizon|the ridge)
record {stuff} from the {n}
model how a_ {n} swallows {stuff}
name the {adj} {n} after (a goddess|its finder|an old myth)
""",
    hap="""
the {n} / pass {place}
the {n} / collapse under its own gravity
{body} / rise (before dawn|in the east|beside the moon)
the {adj} {n} / eject {stuff} into space
the moon / eclipse the sun
the {tool} / gather {stuff} for {small} hours
the {n} / brighten {place}
a meteor / burn up {place}
{stuff} / reach the detector from a_ {adj} {n}
the probe / fly past {body}
the {n} / orbit {body}
the shadow of {body} / cross the {n}
""",
    fact="""
a_ {adj} {n} gives off {stuff} as it cools
light from the {n} takes {num} years to reach us
a star fuses {stuff} in its core
{body} bends the path of any nearby {n}
most {n:pl} hide {place}
every {n} is held together by gravity
""",
)

SAILING = words(
    role="skipper, helmsman, deckhand, navigator, harbour master, first mate, sailmaker, bosun, "
    "cadet on watch, yacht owner, lock keeper, lifeboat captain",
    n="mainsail, keel, anchor, mast, hull, rudder, jib, dinghy, yacht, ketch, spinnaker, "
    "halyard, bilge pump, tiller, cutter, catamaran, boom, mooring line, schooner",
    adj="leaky, salt-stained, wooden, seaworthy, torn, reefed, trim, slack, barnacled, new, "
    "worn, racing, double-reefed, storm-damaged",
    qual="fouled with weed, under full sail, taking on water, safe at anchor, fit for the open "
    "sea, lashed down, hard to steer downwind, drying on deck, slow to come about, due for new "
    "rigging, adrift, swinging on the tide",
    stuff="canvas, rope, diesel, charts, flares, fresh water, life jackets, spare shackles, "
    "pitch, tackle, rigging wire, provisions, ballast, seaweed, fenders",
    tool="compass, sextant, winch, bilge pump, boat hook, depth sounder, chart, radio, sea "
    "anchor, capstan, logbook, tide table",
    place="off the cape, in the harbour, at the mooring, below deck, in the lee of the island, "
    "past the lighthouse, across the bar, at the helm, on the foredeck, in the marina, on the "
    "windward side",
    cause="a rising swell, a foul tide, a torn sail, shallow water, a dragging anchor, a jammed "
    "winch, the offshore wind, fog in the channel, a snapped halyard",
    measure="""
{num} nautical miles
{small} knots of boat speed
{small} fathoms of chain
a crew of {small}
{small} reefs in the {n}
""",
    idea="tides, coastal navigation, reefing in time, the trim of the jib, anchoring, rope work, "
    "the rules of the road at sea, watch keeping",
    vp="""
hoist the {adj} {n} {place}
drop anchor {place} in {small} fathoms
reef the mainsail (before dusk|in good time|in the first squall)
steer for (the lighthouse|the outer buoy|open water|the lee shore)
tack {small} times {place}
splice (the mooring line|the anchor rope|a broken halyard) with {stuff}
plot a course {place}
trim the {n} to the wind
moor the {n} {place}
bail out the {adj} {n} with a bucket
furl the {n} {place}
stow {stuff} (under the bunks|in the bow|in the locker|below deck)
caulk the hull with {stuff}
check the {tool} against the (chart|tide table|log)
row the dinghy ashore for {stuff}
sail {num} nautical miles (before nightfall|against the tide|in a stiff breeze|on one tack)
weigh anchor and (+clear the bar|+head for the channel|+leave the bay)
scrub (the deck|the hull|the waterline) of the {n}
signal the (lifeboat|pilot|coastguard) with {stuff}
cast off (the bow line|the stern line|from the quay) and +hoist the {n}
ride out the (gale|swell|night) {place}
""",
    hap="""
the {n} / heel (hard|to leeward|under a gust)
the tide / turn {place}
the {n} / run aground {place}
a wave / break over the (bow|stern|foredeck)
the {n} / drag its anchor {place}
the crew / reach port (at dawn|under engine|with {stuff} to spare)
the jib / tear along the (foot|seam|luff)
the yacht / round the (buoy|cape|headland)
the {n} / make {small} knots {place}
spray / soak the {stuff}
the wind / back and +shake the {n}
the {adj} {n} / drift {place}
""",
    fact="""
a_ {adj} {n} needs {stuff} before any long passage
the keel keeps a_ {n} upright {place}
no skipper leaves port without {stuff} and a_ {tool}
a slack {n} costs {small} knots {place}
the ebb runs hard {place}
every sailor learns to splice rope and read a_ {tool}
""",
)

GEOLOGY = words(
    role="geologist, surveyor, mineralogist, quarry foreman, volcanologist, core driller, fossil "
    "hunter, seismologist, mapping student, museum curator of minerals, prospector",
    n="fault, outcrop, basalt flow, limestone bed, glacier, crystal, fossil, quartz vein, "
    "moraine, sandstone cliff, granite boulder, lava tube, seam of coal, ridge, sinkhole, "
    "volcano, ore body, shale layer",
    adj="folded, ancient, eroded, fractured, layered, volcanic, weathered, tilted, molten, "
    "glacial, mineral-rich, porous, coarse-grained, Jurassic",
    qual="older than the valley, rich in iron, tilted to the west, split by frost, full of "
    "fossils, cut by a younger dike, worn smooth by ice, soft enough to scratch, buried under "
    "gravel, still active, stained with copper, of volcanic origin",
    stuff="gravel, clay, quartz, magma, limestone, ash, sediment, mica, iron ore, sand, garnets, "
    "slate, feldspar, pumice, chalk, crushed rock",
    tool="hammer, hand lens, drill rig, seismograph, core box, geological map, chisel, sieve, "
    "compass clinometer, rock saw",
    place="in the quarry, along the fault line, at the foot of the cliff, under the glacier, "
    "near the crater rim, in the river terrace, on the scree slope, beneath the ash layer, in "
    "the core sample, on the eastern flank",
    cause="a shift along the fault, frost in the cracks, rising magma, slow erosion, a "
    "landslide, ground water in the limestone, the weight of the ice, a swarm of small tremors",
    measure="""
{num} metres of {stuff}
{num} million years of erosion
{small} cores of {stuff}
a quake of magnitude {small}
{num} kilos of {stuff}
""",
    idea="plate tectonics, erosion, how crystals grow, the dating of rock, sediment and time, "
    "volcanic ash, the movement of glaciers, fossils as clocks",
    vp="""
map the {adj} {n} {place}
drill through {num} metres of {stuff} {place}
chip {stuff} from the {n}
date the {n} to (the ice age|the Jurassic|{num} million years)
trace the fault {place}
sample {stuff} {place}
find a_ {adj} {n} {place}
polish a slice of {stuff} (for the microscope|under water|with fine grit)
sketch the {n} and its (folds|joints|layers|veins)
measure the (dip|strike|pitch|thickness) of the {n}
weigh {stuff} on the scale {place}
sort {stuff} from {stuff}
expose a_ {n} under {num} metres of {stuff}
split the {adj} (slab|slate|shale) with a_ {tool}
identify {stuff} by its (lustre|hardness|streak|cleavage)
log {measure} in the core store
explain how the {n} carved {stuff}
detect tremors {place}
climb the {n} to collect {stuff}
blast {num} tons of {stuff} {place}
""",
    hap="""
the {n} / crack {place}
the glacier / grind {stuff} into powder
lava / pour {place}
the {n} / erode into {stuff}
the ground / shake {place}
{stuff} / settle over the {adj} {n}
the fault / slip by {small} metres
the river / cut through the {n}
the crust / buckle {place}
a seam of {stuff} / appear {place}
the {n} / bury {stuff} {place}
steam / rise {place}
""",
    fact="""
a_ {adj} {n} forms when {stuff} cools slowly
{stuff} / turn to {stuff} under heat and pressure
the {n} records {num} million years of history
water carries {stuff} {place}
a_ {n} and a_ {adj} {n} often lie side by side
{stuff} / be harder than {stuff}
""",
)

RAILWAYS = words(
    role="train driver, signalman, conductor, station master, track engineer, porter, fireman, "
    "shunter, ticket inspector, dispatcher, platform guard, commuter",
    n="locomotive, freight train, signal box, carriage, sleeper car, platform, junction, "
    "viaduct, tunnel, express, level crossing, goods wagon, branch line, turntable, buffer, "
    "night train, crane wagon, tank engine",
    adj="delayed, crowded, electric, narrow-gauge, derailed, restored, southbound, empty, rusty, "
    "high-speed, coupled, northbound, packed, single-track",
    qual="running late, out of service, held at a red signal, waiting for a crew, coupled to the "
    "express, closed for track work, ahead of the timetable, overloaded, stuck at the junction, "
    "bound for the depot, short of coal, back on the rails",
    stuff="coal, ballast, steam, freight, tickets, luggage, rails, mail bags, brake dust, spare "
    "points, timetables, steel sleepers, overhead wire, diesel fuel, signal lamps",
    tool="brake, lever, whistle, signal lamp, points motor, coupling, timetable, rail gauge, "
    "footbridge, boiler, track circuit",
    town="Northgate, Ashford Road, Millbrook, Kingsbridge, Harrow Lane, Eastwick, Stonebridge",
    place="at platform {small}, near {town}, on the branch line, in the depot, between {town} "
    "and {town}, beyond the tunnel, at the junction, in the engine shed, across the viaduct, by "
    "the signal box",
    cause="a points failure, a broken rail, leaves on the line, a late connection at {town}, a "
    "faulty signal, engineering work, a stalled freight train, worn brakes",
    measure="""
{num} passengers
{small} wagons of {stuff}
a delay of {num} minutes
{num} miles of track
{small} carriages
""",
    idea="signalling, the timetable, steam traction, track gauge, freight by rail, the coupling "
    "of wagons, braking distance, the closing of branch lines",
    vp="""
drive the {adj} {n} from {town} to {town}
couple the {n} to {small} wagons of {stuff}
board the {adj} express at {town}
switch the points {place}
inspect (the rails|the brakes|the boiler|the overhead wire) {place}
load {stuff} onto the {n}
announce a delay of {num} minutes at {town}
shunt the {n} into the (siding|depot|engine shed)
check tickets between {town} and {town}
stop the {adj} {n} {place}
lay {num} miles of track {place}
blow the whistle {place}
miss the connection at {town}
shovel {stuff} into the firebox
reroute the {n} through {town}
repair the {tool} {place}
wave the {n} out of the station
restore a_ {adj} {n} in the engine shed
carry {num} passengers to {town}
reserve a (window seat|berth|whole compartment) on the {n}
uncouple the rear {n} at {town}
""",
    hap="""
the {n} / leave {town} {small} minutes late
the {n} / pull into platform {small}
the signal / turn (red|green|amber) {place}
the {n} / derail {place}
passengers // wait {place}
the brakes // squeal {place}
a_ {n} / rattle over the (points|viaduct|crossing)
the {adj} {n} / stall {place}
steam / hiss from the (boiler|valves|tank engine)
the {n} / carry {num} passengers {place}
the conductor's whistle / echo {place}
the line / reopen (at {town}|after {cause}|in both directions)
""",
    fact="""
a_ {adj} {n} needs {num} yards to stop
the line from {town} to {town} was built for {stuff}
a_ {n} cannot pass the signal at {town} on red
{cause} holds up every {n} {place}
the {adj} {n} carries {stuff} at night
most {n:pl} stop only at {town}
""",
)
