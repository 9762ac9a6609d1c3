"""Words of four topics: cooking, gardening, wildlife, weather."""

from sample_data.grammar.engine import words

COOKING = words(
    role="chef, cook, baker, kitchen porter, pastry cook, caterer, butcher, head waiter, dinner "
    "host, apprentice baker, saucier, grill cook",
    n="soup, stew, sauce, pie, roast, custard, loaf, curry, omelette, broth, casserole, risotto, "
    "pudding, gravy, dumpling, batter, glaze, pastry crust, fish course, salad, fillet of bass",
    adj="creamy, spicy, golden, crisp, lukewarm, buttery, tender, smoky, rich, sweet, sour, "
    "peppery, overcooked, glazed, stuffed, flaky",
    qual="far too salty, almost burnt, ready to serve, raw in the middle, light and crisp, thick "
    "enough to coat a spoon, missing a little acid, properly seasoned, bland, overdone, sweet on "
    "the tongue, still steaming",
    stuff="flour, butter, cream, fresh thyme, chopped onions, cracked pepper, olive oil, brown "
    "sugar, grated cheese, yeast, vinegar, lentils, mushrooms, rice, stock, saffron, lemon zest",
    tool="pan, skillet, whisk, ladle, oven, rolling pin, sieve, wooden spoon, grill, mixing "
    "bowl, kitchen scale, chopping board, casserole dish",
    meat="lamb, chicken, beef, pork belly, turkey, trout, bass, duck",
    place="in the kitchen, at the stove, on the back burner, in the pantry, by the oven, on the "
    "chopping board, at the bakery, behind the bar, at the supper table, in the cold store",
    cause="a cold oven, too much salt, old yeast, a blunt knife, weak stock, a broken timer, "
    "careless seasoning, a missing ingredient, the heat of the grill",
    measure="""
{num} grams of {stuff}
(two|three|four|five) spoons of {stuff}
a pinch of {stuff}
(half a|a whole|one more) cup of {stuff}
{small} slices of {meat}
""",
    idea="seasoning, slow cooking, the resting of dough, how sugar browns, the balance of salt "
    "and acid, knife work, menu planning, the flavour of a good stock",
    vp="""
simmer the {n} with {stuff} for {small} (minutes|hours)
whisk (the eggs|the cream|the batter) with {stuff} and {stuff}
knead the dough (by hand|with floured palms|on the board) for {small} minutes
roast the {meat} with {stuff} and {stuff}
season the {n} with {stuff}
chop (onions|carrots|parsley|garlic) and +add {stuff}
stir {stuff} into the {n}
taste the {n} (twice|again|with a clean spoon) and +add {stuff}
bake the {adj} {n} at (low|high|moderate) heat in the {tool}
drain (the noodles|the beans|the potatoes) and +toss them with {stuff}
marinate the {meat} in {stuff} overnight
fry the {meat} (gently|quickly|in batches) with {stuff}
grate {stuff} over the {n}
serve the {n} with (warm bread|green beans|a spoon of {stuff}|roasted carrots)
scrape (the burnt crust|the fat|the caramel) from the {tool}
weigh {measure} on the scale
melt {stuff} in (a|the) {tool} and +pour it over the {n}
reduce the {n} with {stuff} until glossy
carve the {meat} at the table
boil (the potatoes|the pasta|the eggs) and +set aside {measure}
sift {measure} into the {tool}
garnish the {n} with {stuff} and (a slice of lemon|chopped chives|toasted nuts)
""",
    hap="""
the dough / rise (overnight|too slowly|near the oven)
the {n} / boil over (again|onto the stove|in a cloud of steam)
the {n} / burn at the edges
the smell of {stuff} / fill the kitchen
the oven / lose its heat (halfway|before the {n} went in)
the sauce / split (in the pan|after the butter went in)
the {meat} / come out (tender|dry|pink in the middle)
the guests // ask for (more {n}|the recipe|a second helping)
the cream / turn sour (in the heat|overnight)
the {n} / thicken after {measure}
the {tool} / slip and +spill {stuff} on the floor
the flavours // deepen after {small} hours
""",
    fact="""
a_ {n} made with too much {stuff} tastes (flat|heavy|sharp)
{stuff} and {stuff} belong together in any {adj} {n}
good {meat} needs little more than {stuff}
a heavy {tool} keeps the {n} from burning
no cook should (rush|crowd|forget) a_ {n}
salt brings out (the sweetness|the depth|the warmth) of {stuff}
""",
)

GARDENING = words(
    role="gardener, head gardener, nursery owner, allotment holder, botanist, groundskeeper, "
    "orchard keeper, seed merchant, florist, flower judge, landscape designer, volunteer at the "
    "nursery",
    n="rose bush, hedge, flower bed, lawn, vine, apple tree, seedling, shrub, compost heap, "
    "tulip, tomato plant, fern, border, climber, fig tree, lavender bush, pumpkin, cutting, "
    "orchid",
    adj="leafy, wilted, budding, thorny, overgrown, potted, flowering, evergreen, sickly, hardy, "
    "pruned, shady, young, mossy, fragrant",
    qual="in full bloom, short of water, covered in aphids, ready for pruning, rooted at last, "
    "past its best, eaten by slugs, doing well in the shade, choked with weeds, pale from poor "
    "soil, growing again, heavy with fruit",
    stuff="compost, peat, mulch, manure, bulbs, topsoil, bean seeds, leaf mould, weeds, "
    "rainwater, bone meal, moss, root cuttings, fresh shoots, wood ash, slug pellets",
    tool="spade, trowel, rake, hoe, watering can, pair of shears, wheelbarrow, cold frame, hose, "
    "garden fork, greenhouse, trellis",
    pest="slugs, aphids, snails, greenfly, moles, caterpillars",
    place="in the greenhouse, by the compost heap, along the south wall, in the walled garden, "
    "under the apple trees, on the allotment, between the rows of beans, at the garden gate, in "
    "the rose bed, beside the pond, on the river bank",
    cause="a late frost in the beds, poor drainage, acid soil, too much shade, a plague of "
    "slugs, hard pruning, dry roots, a lack of compost, mildew",
    measure="""
{num} litres of {stuff}
{small} barrows of {stuff}
a row of {small} {n:pl}
(two|three|four) sacks of {stuff}
{num} bulbs from the nursery
""",
    idea="pruning, crop rotation, the care of young roots, soil and drainage, grafting, "
    "composting, the timing of the first sowing, keeping {pest} away",
    vp="""
prune the {n} (hard|lightly|back to the wood) with (shears|a clean blade|the old knife)
sow {stuff} (in trays|in shallow rows|under glass)
water the {n} (at dusk|before breakfast|with the hose) (twice|every other day)
dig {stuff} into the {adj} (bed|border|soil)
pull {stuff} from around the {n}
mulch the {n} with {stuff}
tie the {n} to (the trellis|a cane|the fence) with (twine|soft string|wire)
rake {stuff} off the lawn
plant a row of {small} {n:pl} {place}
graft a_ {adj} shoot onto the {n}
thin the (carrots|lettuces|radishes|seedlings) and +spread {stuff}
pick {pest} off the {n}
mow the lawn and +edge the {adj} border
harvest (the beans|the plums|the squash|the onions) into (a basket|the wheelbarrow|old crates)
shelter the {n} from frost with (straw|fleece|a glass bell)
repot the {n} in {stuff}
turn the compost heap with a_ {tool}
clip the hedge into (a ball|a neat arch|a low wall)
feed the {n} with {stuff} and {stuff}
train the {adj} {n} against the wall
collect {stuff} for (the spring|the new beds|the seed swap)
""",
    hap="""
the {n} / flower (early|late|for the first time)
the {n} / wilt (in the heat|overnight|without shade)
the seedlings // sprout (under glass|in the warm tray|after {small} days)
{pest} // strip the {n}
the roots // rot in the wet soil
the frost / blacken the {adj} {n}
the compost / warm up under {stuff}
the {n} / put out (new leaves|red buds|a single bloom)
weeds // spread (between the paths|through the border|under the {n})
the {n} / climb over the (trellis|shed|arch)
petals // drop from the {n}
bees // crowd around the {adj} {n}
""",
    fact="""
a_ {adj} {n} wants (sun|shade|damp soil) and plenty of {stuff}
{stuff} / keep the soil (open|moist|warm) in spring
{pest} love a_ {adj} {n}
most shrubs root best in {stuff}
no {n} thrives in (heavy clay|dry shade|frozen ground)
a_ {tool} is worth more than {stuff} in a wet year
""",
)

WILDLIFE = words(
    role="ranger, ornithologist, bird watcher, field biologist, warden of the reserve, ringer, "
    "wildlife photographer, tracker, gamekeeper, guide, bat surveyor, conservation officer",
    n="crane, heron, falcon, otter, badger, kingfisher, fox, owl, red deer, osprey, hare, "
    "warbler, swift, beaver, bittern, kestrel, stoat, buzzard, curlew, weasel",
    adj="young, nesting, spotted, migrating, wary, ringed, rare, injured, grey, tagged, "
    "juvenile, solitary, breeding, white-tailed",
    qual="hard to spot, nesting nearby, gone by dawn, fully fledged, shy of people, feeding on "
    "eels, back from its wintering grounds, in moult, close to the burrow, tagged on the left "
    "leg, easily disturbed, hunting at dusk",
    stuff="feathers, fresh droppings, eggs, voles, insects, pellets, paw prints, beetles, reed "
    "stems, tracks, fur, small fish, frogspawn, berries, nesting material",
    tool="pair of binoculars, telescope on a tripod, mist net, trail camera, bat detector, nest "
    "box, hide, field guide, leg ring, sound recorder",
    place="in the reed bed, near the den, at the edge of the marsh, above the estuary, in the "
    "canopy, by the otter holt, on the mudflats, from the hide, along the migration route, in "
    "the old oak, on the bank of the stream",
    cause="a loss of habitat, a passing hawk, human disturbance, a shortage of voles, the fox at "
    "the den, noisy visitors, egg thieves, a failed brood",
    measure="""
{num} {n:pl}
a flock of {num} birds
{small} breeding pairs
a clutch of {small} eggs
{small} chicks in one nest
{num} tracks {place}
""",
    idea="migration, nest building, bird song, territory, the food web of the marsh, camouflage, "
    "predators and prey, the ringing of chicks, how herds move",
    vp="""
count {measure} {place}
ring the {adj} {n} and (+weigh it|+check its wings|+let it go)
watch a_ {n} feed on {stuff}
follow the tracks of a_ {n} (through the mud|across the heath|into the reeds)
photograph the {adj} {n} {place}
find {stuff} {place}
release the {n} {place}
record the (call|song|alarm note) of a_ {n}
set up a_ {tool} {place}
spot a_ {adj} {n} among the (reeds|birches|gulls)
tag the {n} before its (migration|first flight|winter sleep)
protect the (nest|burrow|roost) of the {adj} {n}
collect {stuff} for the survey
startle a_ {n} {place}
map every (nest|den|sett|roost) along the (marsh|shore|ridge)
feed the {adj} {n} with {stuff}
measure the (wing|beak|tail|footprint) of the {n}
hear a_ {n} call {place}
film the {n} hunting {stuff}
guard the {adj} chicks from (foxes|crows|a hungry stoat)
""",
    hap="""
a_ {n} / circle over the (marsh|colony|moor)
the {n} / dive after {stuff}
a pair of {n:pl} // nest {place}
the {n} / carry {stuff} to its young
the herd / move (uphill|down to the water|into cover)
the chicks // hatch (early|within {small} days|under the mother's wing)
the {adj} {n} / vanish into the (reeds|bracken|undergrowth)
the flock / settle {place}
a_ {n} / bark at the intruder
an owl / hunt {stuff} at dusk
the {n} / shed its (winter coat|antlers|old feathers)
the swallows // gather before the long flight south
""",
    fact="""
a_ {n} lives on {stuff} and {stuff} in winter
the {adj} {n} avoids open ground
most {n:pl} breed {place}
a_ {n} will defend its territory against any {n}
{stuff} / betray the presence of a_ {n}
the call of the {n} carries far over the marsh
""",
)

WEATHER = words(
    role="forecaster, meteorologist, weather observer, climate researcher, storm chaser, radar "
    "operator, weather presenter, duty forecaster, balloon technician, keeper of the rain gauge",
    n="cold front, storm, shower, gale, fog bank, heat wave, thunderstorm, blizzard, breeze, "
    "squall, depression, hailstorm, drizzle, snowfall, rain band, jet stream, cloud layer, ridge "
    "of high pressure",
    adj="heavy, scattered, sudden, mild, icy, humid, persistent, light, severe, gusty, patchy, "
    "slow-moving, stormy, freezing",
    qual="moving east, weaker than forecast, due before dawn, stronger over the hills, slow to "
    "clear, likely to bring hail, over by noon, hard to predict, wetter than usual, drifting "
    "north, building from the west, below freezing",
    stuff="sleet, hail, drizzle, thick fog, freezing rain, low cloud, warm air, wet snow, frost, "
    "mist, thunder, moist air, sunshine, black ice, northerly wind",
    tool="barometer, rain gauge, thermometer, weather radar, wind vane, weather balloon, "
    "satellite picture, anemometer, pressure chart",
    place="over the hills, along the coast, in the north, across the lowlands, in the valleys, "
    "over the western isles, further inland, on high ground, near the border, in the eastern "
    "counties",
    cause="a deep depression, falling pressure, warm air from the south, a shift in the jet "
    "stream, strong gusts, a temperature inversion, the approaching front, clear skies at night",
    measure="""
{num} millimetres of rain
gusts of {num} miles an hour
{small} degrees of frost
{num} centimetres of snow
{small} hours of sunshine
""",
    idea="pressure systems, how fog forms, the reading of a barometer, wind chill, storm "
    "warnings, seasonal rainfall, the shape of clouds, long-range forecasts",
    vp="""
forecast {stuff} {place} (by evening|before dawn|at first light)
expect {measure} {place}
warn of {stuff} and {stuff} {place}
measure {measure} with the {tool}
track the {adj} {n} on (the radar|the chart|the satellite picture)
issue a_ (yellow|red|amber) warning for {stuff} {place}
record {measure} (overnight|since noon|by dusk)
read the {tool} and +note {stuff}
predict a_ {adj} {n} {place}
launch a balloon into the {n}
compare the {n} with (last winter|the long-term average|the record of the decade)
blame the {adj} {n} on {cause}
watch the {n} (deepen|weaken|cross the coast|drift inland)
downgrade the {n} to (a breeze|a shower|a mild depression)
chart the path of the {n} {place}
clear {stuff} {place}
bring {stuff} {place} (by nightfall|for a time|at the weekend)
see {stuff} give way to {stuff}
prepare for a_ {adj} {n} {place}
model the {n} with (finer grids|new pressure data|{num} runs)
""",
    hap="""
the {n} / sweep in {place}
temperatures // drop to {small} degrees {place}
the wind / veer to the (north|west|south-east) and +strengthen {place}
{stuff} / linger {place}
the barometer / fall (sharply|all afternoon|by {small} points)
clouds // thicken {place}
{stuff} / turn to {stuff} {place}
the sky / clear (by noon|behind the front|from the west)
lightning / strike {place}
the {n} / bring {measure}
a_ {adj} {n} / stall {place}
the fog / lift (slowly|before noon|for an hour)
""",
    fact="""
a falling barometer means {stuff} or a_ {adj} {n}
{stuff} / form when warm air meets (cold ground|a front|the sea)
a_ {adj} {n} rarely lasts more than {small} hours {place}
{cause} can turn {stuff} into {stuff}
the wind drops as the {n} passes {place}
high pressure keeps {stuff} away
""",
)
