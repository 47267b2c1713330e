"""
Multiple-choice questions of common knowledge, for the reasoning expert (stand-in for the paper's ARC training data).

What:  `make_reasoning(rng)` draws one question with four options; `unseen=True` draws from other families, asked with
       other words and in other option lists, to see whether the expert learned to answer questions or these questions.
Why:   a 135M model is rewarded only where it is sometimes right, so the content is what a child knows; the form is what
       it has to learn. The correct option's place is uniform, and right and wrong words come from the same tables.

Tables: a line of `_pairs` is one group of "clue=answer" (a line that ends in ";" goes on); a line of `_sets` is
        "groups | clue | words". Answers that share a group never stand against each other: "saw" cuts paper, too.
"""
import random

from .grade import Example

# How often each option list is drawn, per pool: the one place to tune the difficulty.
SEEN_FORMATS = {"paren": 0.12, "dot": 0.12, "inline": 0.12, "options": 0.32, "choose": 0.32}
UNSEEN_FORMATS = {"colon": 0.35, "bullets": 0.30, "words_first": 0.35}


def _pairs(text, both=False):
    """[(groups, clue, answer)], one group per line; `both`: each pair also the other way round."""
    lines = text.strip().replace(";\n", ";").splitlines()
    table = [({i}, *pair.strip().split("=")) for i, line in enumerate(lines) for pair in line.split(";")]
    return table + [(g, b, a) for g, a, b in table] if both else table


def _sets(text):
    """[(groups, clue, word)] from lines "groups | clue | words"; groups are letters, "_" inside a word is a space."""
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [({*g.strip(), clue}, clue, w.replace("_", " ")) for g, clue, words in rows for w in words.split()]


# ------------------------------------------------------------------------------------------------ seen
CATEGORY = _sets("""
a | an animal | dog cat horse cow pig sheep goat lion tiger elephant monkey rabbit wolf bear zebra giraffe donkey camel
an | a bird | eagle sparrow parrot owl penguin pigeon robin crow swan flamingo ostrich seagull hawk peacock raven
ac | a fish | salmon tuna trout cod shark goldfish carp herring sardine eel catfish swordfish piranha
a | an insect | ant bee butterfly mosquito beetle grasshopper wasp moth cockroach dragonfly ladybug termite flea
fc | a fruit | apple banana grape strawberry pear mango cherry pineapple watermelon lemon blueberry raspberry papaya
f | a vegetable | carrot potato onion cabbage spinach broccoli lettuce cauliflower celery radish turnip asparagus
fc | a drink | milk juice coffee tea lemonade soda beer wine cider smoothie champagne whiskey milkshake
f | a dessert | cake cookie pie pudding brownie cupcake doughnut candy cheesecake muffin marshmallow sundae
c | a color | red blue green yellow purple pink brown black white gray beige turquoise maroon crimson scarlet
t | a tool | hammer screwdriver saw wrench drill pliers shovel axe rake chisel crowbar spade hoe
v | a vehicle | car bus truck bicycle train motorcycle van tractor taxi airplane helicopter scooter ambulance boat
u | a piece of furniture | chair table sofa bed desk bookcase wardrobe dresser armchair couch stool cupboard bench
w | a piece of clothing | shirt trousers jacket sweater skirt dress coat scarf hat glove sock jeans pajamas
g | a country | France Germany Spain Italy Japan China India Brazil Canada Mexico Egypt Russia Norway Kenya Greece
gn | a city | Paris London Tokyo Berlin Madrid Rome Moscow Chicago Boston Toronto Vienna Dublin Lisbon
gs | a language | English French Spanish German Italian Chinese Japanese Russian Arabic Portuguese Korean Hindi
n | a month | January February March April May June July August September October November December
n | a person's name | Emma Michael Sarah David John Anna Peter James Laura Robert Linda Thomas Susan Daniel
s | a school subject | art math history geography biology chemistry physics reading algebra geometry economics science
# | a number | two three four five six seven eight nine ten eleven twelve twenty hundred
ms | a musical instrument | piano guitar violin drum flute trumpet cello clarinet harp saxophone trombone banjo tuba
o | a sport | football tennis basketball baseball hockey golf rugby volleyball swimming boxing soccer badminton
p | a job | teacher doctor nurse farmer lawyer plumber pilot carpenter dentist engineer baker waiter firefighter
p | a family member | mother father sister brother aunt uncle cousin grandmother grandfather son daughter nephew
b | a part of the body | arm leg hand foot knee elbow nose ear eye shoulder finger mouth neck ankle
lnc | a flower | rose tulip daisy sunflower orchid daffodil carnation marigold poppy peony dandelion lily
lnc | a tree | oak pine maple willow birch cedar elm redwood fir spruce poplar sycamore
cet | a metal | iron gold silver copper steel aluminum tin zinc nickel bronze brass platinum titanium
et | a kitchen appliance | oven toaster blender refrigerator microwave cooker freezer kettle mixer stove juicer grill
h | a building | house school hospital church castle hotel library museum factory barn cottage skyscraper palace
k | a shape | circle square triangle rectangle oval pentagon hexagon octagon cube cone sphere cylinder
r | a kind of weather | rain snow fog hail storm blizzard hurricane tornado sunshine drizzle thunderstorm sleet
i | a feeling | happiness anger sadness fear joy love jealousy excitement boredom shame pride worry grief
""")
USE = _pairs("""
cut paper=scissors; slice bread=knife; cut down a tree=axe; shave a beard=razor; cut a wooden board=saw
hit a nail=hammer; turn a screw=screwdriver; make a hole in a wall=drill; tighten a bolt=wrench; paint a wall=roller
dig a hole=shovel; gather fallen leaves=rake; water the garden=hose
eat soup=spoon; eat noodles=fork; drink coffee=mug; fry an egg=pan; boil water for tea=kettle; toast bread=toaster;
bake a cake=oven; keep food cold=refrigerator; make a smoothie=blender
sweep the floor=broom; clean a carpet=vacuum; wash a wet floor=mop; wash your hands=soap; wash clothes=washer
brush your teeth=toothbrush; tidy your hair=comb; look at your own face=mirror
write a letter=pen; draw a straight line=ruler; remove pencil marks=eraser; color a picture=crayon;
stick paper together=glue; mail a letter=envelope; tie a boat to a post=rope; keep papers together=stapler
tell the time=clock; count the days=calendar; find your way in a city=map; know which way is north=compass
measure a fever=thermometer; find out how heavy you are=scale; cover a cut finger=bandage; put out a fire=extinguisher
look at the stars=telescope; see tiny germs=microscope; read when you have weak eyes=glasses; take a photo=camera
listen to music=headphones; watch a movie=television; look up a word=dictionary; wake up on time=alarm
sew on a button=needle; hang up a coat=hanger; make wrinkled clothes flat=iron; dry yourself=towel
stay dry in the rain=umbrella; keep your hands warm=gloves; protect your head=helmet; hold up your pants=belt
open a locked door=key; light a candle=match; see in the dark=flashlight; climb onto a roof=ladder
carry books to school=backpack; pack clothes for a trip=suitcase; pay in a store=money
cross a lake=boat; travel through the sky=airplane; catch a fish=net; ride to school=bicycle
sleep at night=bed; rest your head on=pillow; sit down=chair; keep warm in bed=blanket
""")
PROPERTY = [[part.split() for part in line.split("|")] for line in """
can_fly | eagle jet butterfly bee sparrow owl pigeon moth airplane | dog table horse elephant fish stone spoon chair
is_very_cold | ice snow iceberg glacier icicle snowball freezer frost | fire oven candle volcano flame stove desert sun
is_very_hot | fire lava oven sun steam volcano stove flame | ice snow iceberg glacier icicle snowball freezer igloo
is_round | ball wheel coin globe marble bubble pearl orange | book door brick ladder pencil knife fork envelope
is_alive | dog tree bird child flower horse baby frog spider | rock chair spoon hammer car brick clock shoe bottle
is_a_liquid | water milk oil juice gasoline blood coffee ink | stone wood bread paper iron brick chair apple pencil
is_sharp | knife needle razor sword thorn axe saw dagger | pillow sponge blanket ball soap balloon towel cloud
is_soft | pillow blanket feather cotton sponge wool fur towel | rock brick hammer nail anvil coin concrete bottle
is_very_heavy | elephant truck piano whale bus car anchor tank | feather leaf button balloon pencil spoon sock paper
tastes_sweet | sugar honey candy cake chocolate cookie jam syrup | salt vinegar pepper onion garlic mustard cabbage soap
lives_in_the_ocean | whale shark octopus squid tuna crab coral seal | lion giraffe eagle bee rabbit squirrel cow monkey
has_wheels | bicycle car truck wagon bus tractor scooter van | boat sled ladder ship canoe blanket sofa fence pillow
needs_electricity | tv computer lamp toaster fridge laptop radio fan | spoon book broom hammer pencil chair wagon bottle
is_very_loud | thunder siren bomb alarm rocket drill cannon tank | feather pillow snail flower cloud leaf sponge whisper
burns_easily | paper wood straw coal hay cotton charcoal gasoline | water stone glass brick ice steel concrete gravel
is_very_small | ant flea crumb seed germ atom needle mosquito | elephant mountain whale castle bus ocean city tower
can_be_eaten | bread cheese rice soup sandwich pizza pasta egg | chair hammer shoe rock pencil bottle towel key lamp
can_be_read | book newspaper poster letter menu poem diary novel | spoon pillow hammer apple river banana shoe blanket
gives_light | lamp candle sun torch lantern fire lighthouse star | spoon stone pillow shoe carpet apple fence blanket
sinks_in_water | stone coin hammer anchor brick nail rock key | cork leaf raft boat canoe feather duck log
melts_when_heated | ice butter chocolate snow wax cheese icicle snowman | stone brick wood paper carrot leaf sand rope
has_four_legs | dog cat horse cow lion elephant sheep zebra | snake eagle bee worm fish penguin spider snail
has_feathers | chicken eagle duck parrot penguin owl swan goose | dog snake frog horse turtle shark lizard monkey
grows_on_trees | figs leaves pears nuts acorns plums limes dates | shoes pencils potatoes eggs fish coins shirts carrots
is_wet | rain lake river ocean puddle pond swamp stream | desert sand fire dust chalk flame paper ash stove
is_taller_than_a_person | giraffe hill tower castle church crane palace oak | mouse cup penguin ant spoon frog hat hen
""".strip().splitlines()]
OPPOSITE = _pairs("""
hot=cold; big=small; wide=narrow; thick=thin; huge=tiny; fat=skinny
fast=slow; early=late; young=old; new=ancient; first=last; before=after; begin=end; start=finish; now=later
good=bad; right=wrong; true=false; happy=sad; laugh=cry; love=hate; kind=cruel; friend=enemy; brave=afraid; polite=rude
open=closed; inside=outside; full=empty; come=go; arrive=leave; enter=exit; push=pull
up=down; above=below; top=bottom; rise=fall; high=low; near=far; front=back; north=south; east=west; tall=short;
deep=shallow
day=night; bright=dark; black=white; morning=evening; summer=winter; sunny=cloudy; awake=asleep
loud=quiet; noisy=silent; hard=soft; rough=smooth; wet=dry; clean=dirty; strong=weak; easy=difficult
rich=poor; cheap=expensive; buy=sell; give=take; win=lose; find=hide; save=spend; borrow=lend
boy=girl; man=woman; king=queen; husband=wife; dead=alive; sick=healthy; sweet=sour; always=never
""", both=True)
PLACE = _pairs("""
a cow=farm; a bear=forest; a camel=desert; a whale=ocean; a beehive=garden; a frog=pond; a penguin=Antarctica;
a crab=beach; clowns and acrobats=circus; a caged lion=zoo; bats and stone walls=cave; hay and horses=barn;
fish in a glass box=aquarium; stars and planets=space; clouds=sky; a coal miner=mine; lava=volcano;
a climber with a flag=mountain top
books to borrow=library; a blackboard=classroom; famous old paintings=museum; a science test tube=laboratory
a surgeon=hospital; medicine for sale=pharmacy; a drill for teeth=dental clinic
a bathtub=bathroom; a stove at home=kitchen; your own bed=bedroom; a computer and a boss=office; a lawn mower=shed
a pilot=airport; the captain of a boat=ship; train tickets=station; cars to be repaired=garage;
fuel for your car=gas station
a judge=courtroom; a prisoner=jail; money in a safe=bank; letters and stamps=post office; a fire truck=fire station
loaves of bread for sale=bakery; a waiter with a menu=restaurant; a shopping cart=supermarket; a haircut=barber shop
actors on a stage=theater; popcorn and a big screen=cinema; a roller coaster=amusement park;
workers at machines=factory
a goalkeeper=stadium; treadmills and weights=gym; a diving board=swimming pool; a swing and a slide=playground
a priest=church; a grave=cemetery; a king and queen=palace; a knight=castle; a bride=wedding;
guests for one night=hotel
""")
JOB = _pairs("""
teaches children=teacher; treats sick people=doctor; fixes teeth=dentist; heals sick animals=vet;
sells medicine=pharmacist
flies airplanes=pilot; drives people around in a taxi=driver; sails the seas=sailor; travels to space=astronaut
puts out fires=firefighter; arrests thieves=policeman; decides in court=judge; defends people in court=lawyer;
fights in a war=soldier; guards a house=watchman
bakes bread=baker; cooks meals in a restaurant=chef; serves food to guests=waiter; sells meat=butcher;
grows crops=farmer
builds things from wood=carpenter; repairs water pipes=plumber; repairs cars=mechanic; fixes electric wires=electrician;
designs houses=architect; lays bricks=mason; makes horseshoes=blacksmith
makes clothes=tailor; cuts hair=barber; mends shoes=cobbler; catches fish=fisherman
writes novels=author; reports the news=journalist; takes pictures with a camera=photographer; paints pictures=painter
plays roles in movies=actor; sings songs=singer; dances on stage=dancer; pulls rabbits out of a hat=magician
delivers letters=mailman; cleans rooms=cleaner; looks after plants=gardener; lends out books=librarian;
digs for coal=miner
does experiments=scientist; studies the stars=astronomer; trains a team=coach; rules a kingdom=king;
leads prayers=priest
shows a city to travelers=guide; takes care of a baby=babysitter; takes the money in a store=cashier
""")
MATERIAL = _sets("""
g | glass | window mirror windshield jar vase lens aquarium wineglass lightbulb
wp | wood | log fence plank bookshelf canoe violin pencil matchstick toothpick
m | metal | nail coin anchor key sword needle paperclip chain screw
wp | paper | newspaper envelope notebook poster magazine postcard map ticket
c | cloth | shirt towel curtain flag blanket bedsheet handkerchief dress sock
c | leather | wallet saddle belt briefcase holster whip
r | rubber | tire eraser balloon
d | milk | cheese butter yogurt cream
d | flour | bread cake pasta pancake cookie pizza cracker
s | stone or brick | chimney pyramid castle gravestone
i | ice or snow | iceberg snowman icicle igloo snowball glacier
""")
COLOR = _sets("""
r | red | blood strawberry tomato cherry ruby ladybug raspberry
yg | yellow | banana lemon sun sunflower canary duckling mustard butter
yg | green | grass leaf frog cucumber lettuce broccoli lime cactus spinach pea
w | white | snow milk swan cotton salt rice flour sugar chalk
k | black | coal tar raven crow panther tire
r | orange | carrot pumpkin tangerine
wk | brown | chocolate mud coffee chestnut cinnamon walnut
u | blue | sky ocean blueberry sapphire
r | pink | flamingo pig bubblegum
wku | gray | elephant concrete dolphin rhino ash
""")
YOUNG = _pairs("""
dog=puppy; wolf=pup; bear=cub
cat=kitten; rabbit=bunny
cow=calf; horse=foal; deer=fawn; sheep=lamb; pig=piglet; kangaroo=joey
hen=chick; duck=duckling; goose=gosling; swan=cygnet; owl=owlet; eagle=eaglet
frog=tadpole; butterfly=caterpillar; fly=maggot
man=boy; woman=girl; human=baby; goat=kid
tree=sapling
""")
SOUND = _pairs("""
barks=dog; howls at the moon=wolf
meows=cat; roars=lion; hisses=snake
moos=cow; neighs=horse; says baa=sheep; oinks=pig; brays=donkey
quacks=duck; clucks=hen; crows in the morning=rooster; hoots at night=owl; gobbles=turkey; repeats words=parrot;
coos=pigeon
croaks=frog; buzzes=bee; squeaks=mouse; trumpets with its trunk=elephant; chirps in the grass at night=cricket
""")
PART = _pairs("""
pedals=bicycle; a steering wheel=car; wings and a pilot=airplane; a sail=boat; rails and wagons=train;
runners for snow=sled
pages=book; a screen and a mouse=computer; a flash and a lens=camera; two hands that turn=clock;
many channels=television
black and white keys=piano; six strings=guitar; a bow and four strings=violin; two sticks=drum
a trunk and tusks=elephant; a very long neck=giraffe; stripes=zebra; a mane=lion; a hump=camel;
a shell on its back=turtle; a pouch=kangaroo; a horn on its nose=rhino; eight arms=octopus; eight legs=spider;
scales and fins=fish; feathers=bird; antlers=deer; quills=porcupine; pincers=crab; fingers=hand; toes=foot;
lips and gums=mouth; nostrils=nose; a lobe=ear
petals=flower; bark and branches=tree; spines instead of leaves=cactus; a peel you pull off=banana; a yolk=egg;
a crust=pizza
a banister=stairs; a chimney=house; a mattress=bed; an altar=church; a drawbridge=castle; small bristles=toothbrush
sleeves=shirt; laces=shoe; a buckle=belt; a wick=candle; a blade=knife; a trigger=gun; rungs=ladder; prongs=fork
""")
# ------------------------------------------------------------------------------------------------ unseen
SYNONYM = _pairs("""
big=large; small=little; fast=quick; start=begin; end=finish; rich=wealthy; hard=difficult; easy=simple;
strong=powerful
happy=glad; angry=mad; scared=afraid; smart=clever; funny=amusing; pretty=beautiful; sad=unhappy; brave=courageous;
tired=sleepy
ill=sick; home=house; street=road; boat=ship; gift=present; stone=rock; child=kid; dad=father; mom=mother;
picture=image
shout=yell; speak=talk; jump=leap; look=watch; close=shut; fix=repair; cry=weep; help=assist; forest=woods;
build=construct
""", both=True)
SCALES = [[part.split() for part in line.split("|")] for line in """
biggest smallest | atom ant bee mouse rabbit dog pig cow elephant whale mountain country planet galaxy
heaviest lightest | feather pencil apple brick chair sofa piano car truck airplane ship
fastest slowest | snail turtle walker runner bicycle bus racecar airplane rocket
tallest shortest | ant mouse cat child giraffe house skyscraper mountain
oldest youngest | baby toddler child teenager adult grandfather
longest shortest | second minute hour day week month year decade century
most_expensive cheapest | candy sandwich shirt bicycle car house castle
hottest coldest | glacier refrigerator rain bath oven lava sun
""".strip().splitlines()]
ORDER = {"day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
         "month": "January February March April May June July August September October November December".split()}
CAUSE = _pairs("""
leave ice in the sun=it melts; put water in a freezer=it freezes; boil water for an hour=it turns to steam;
put sugar in tea=it dissolves
drop a glass on stone=it breaks; cut a rope in the middle=it becomes two pieces;
let go of a ball in the air=it falls down; blow air into a balloon=it gets bigger; stick a needle in a balloon=it pops;
throw a cork in water=it floats; throw a key in a lake=it sinks
never water a plant=it dries up; plant a seed and water it=it grows; leave bread out for weeks=it gets moldy;
leave iron in the rain=it rusts
hold paper in a flame=it burns; turn off the lamp at night=it gets dark; light a candle in a dark room=it gets bright
touch a hot stove=you get burned; stay in the sun too long=you get sunburn; mix blue and yellow paint=you get green;
mix red and white paint=you get pink
eat too much candy=you get a stomachache; stay up all night=you feel tired; run very fast=you get out of breath;
skip all your meals=you feel hungry; drink nothing all day=you feel thirsty; never brush your teeth=you get cavities
walk in the rain=you get wet; go out in snow without a coat=you feel cold; practice a skill daily=you get better;
hear a funny joke=you laugh
""")
SCIENCE = [line.split(" = ") for line in """
Which tool would a scientist use to look at a tiny cell? = microscope, telescope, scale, ruler
Which instrument shows how hot the air is? = thermometer, magnifying glass, ruler, compass
Which instrument is best for studying the surface of the Moon? = telescope, microscope, stethoscope, compass
Which tool measures the mass of a rock? = balance, ruler, clock, camera
Which object would a magnet pull? = iron nail, wooden spoon, plastic cup, glass marble
Which material lets electricity pass through it easily? = copper, rubber, plastic, wood
Which material would keep hot soup warm the longest? = foam, copper, steel, tin
Which object is the main source of heat and light for Earth? = the Sun, the Moon, a volcano, lightning
What do plants need from the sky to make their own food? = sunlight, moonlight, thunder, dust
Which part of a plant takes in water from the soil? = roots, petals, flowers, bark
Which part of a plant makes most of its food? = leaves, roots, seeds, bark
Which gas do people need to breathe in order to stay alive? = oxygen, helium, carbon monoxide, neon
What is water called when it is a solid? = ice, steam, rain, vapor
Which change turns a liquid into a gas? = evaporation, freezing, melting, condensation
What pulls a dropped ball toward the ground? = gravity, lightning, moonlight, sound
Which force slows a sliding box on a rough floor? = friction, magnetism, sound, sunlight
Which organ pumps blood around the body? = heart, stomach, lungs, liver
Which organ controls thinking and movement? = brain, kidney, stomach, heart
Which body system is made of the bones? = skeleton, nerves, veins, skin
Which animal is a mammal? = whale, lizard, salmon, frog
Which animal hatches from an egg? = chicken, horse, cow, dog
Which animal changes from a caterpillar into its adult form? = butterfly, grasshopper, snail, worm
Which animal survives the winter by sleeping through it? = bear, goose, shark, penguin
Which animal eats only plants? = cow, lion, eagle, shark
Which animal is a predator? = wolf, rabbit, sheep, deer
What makes a polar bear hard to see on snow? = white fur, sharp teeth, big paws, long claws
What helps a duck move through water? = webbed feet, a loud voice, small eyes, a long tail
What causes day and night on Earth? = the spin of Earth, clouds in the sky, strong winds, tides
How long does Earth take to travel around the Sun? = a year, a day, a week, a month
Which of these orbits Earth? = the Moon, the Sun, Mars, Venus
Which of these energy sources can never run out? = wind, coal, oil, gasoline
Which fuel formed underground from dead plants long ago? = coal, wood, wind, sunlight
What is formed when lava cools and hardens? = rock, wood, ocean water, rust
What shakes the ground and can make houses fall? = an earthquake, a rainbow, moonlight, fog
What is left in the rock when a shell of long ago turns to stone? = a fossil, a magnet, a coin, a crystal ball
Which action helps to save water? = taking short showers, leaving taps on, filling a pool, watering a road
Which action is best for keeping germs off your hands? = washing with soap, wiping on grass, clapping, wearing a ring
What should students wear to protect their eyes in the lab? = goggles, sandals, gloves, a scarf
Which of these can be recycled into new paper? = old newspaper, a banana peel, a brick, a broken glass jar
What carries sound from a drum to your ear? = air, light, magnets, shadows
Which object makes light bounce back so that you see yourself? = a mirror, a carpet, a brick, a black cloth
Which simple machine is a seesaw? = lever, pulley, screw, wheel
What type of weather comes with thunder and lightning? = a storm, a drought, fog, a heat wave
What falls from clouds when the air is below freezing? = snow, fog, dust, sunlight
Which is a physical property of a lemon? = its yellow color, its price, its name, its owner
""".strip().splitlines()]

# clue -> {0}; at least three wordings each
SEEN_FRAMES = {
    "category": ["Which of these is {0}?", "Which one of the following is {0}?", "Only one names {0}. Which one?"],
    "use": ["Which of these would you use to {0}?", "What do people use to {0}?", "I want to {0}. What do I need?"],
    "property": ["Which of these {0}?", "Which one {0}?", "Find the word for something that {0}."],
    "opposite": ["What is the opposite of {0}?", "Which is the opposite of \"{0}\"?", "{0} is the contrary of what?"],
    "place": ["Where would you find {0}?", "Where are you most likely to see {0}?", "In what place do you expect {0}?"],
    "job": ["Who {0}?", "Which person {0}?", "What do we call someone who {0}?"],
    "material": ["Which of these is made of {0}?", "Which thing consists of {0}?", "What is mostly made of {0}?"],
    "color": ["Which of these is usually {0}?", "Which thing has the color {0}?", "What is {0} in color?"],
    "young": ["What is a young {0} called?", "What do we call a very young {0}?", "Which is the young of a {0}?"],
    "sound": ["Which animal {0}?", "Which of these animals {0}?", "Name the animal that {0}."],
    "part": ["Which of these has {0}?", "What has {0}?", "Which thing comes with {0}?"]}
UNSEEN_FRAMES = {
    "odd_one_out": ["Three are alike. Which one is not?", "Find the odd one out.", "Which does not fit the rest?"],
    "synonym": ["Which word means almost the same as {0}?", "Another word for {0} is", "{0} has the same meaning as"],
    "analogy": ["{0} is to {1} as {2} is to what?", "{0} goes with {1}, so {2} goes with", "{0} : {1} = {2} : ?"],
    "scale": ["Out of these four, what is the {0}?", "What would you call the {0} here?", "Compare them: the {0} is"],
    "order": ["What {0} comes directly {1} {2}?", "The {0} right {1} {2} is", "Say which {0} is just {1} {2}."],
    "cause": ["What happens when you {0}?", "Suppose you {0}. What will happen?", "If you {0}, then"],
    "science": ["{0}", "Science class: {0}", "A student asks: {0}"]}
TABLES = {"category": CATEGORY, "use": USE, "opposite": OPPOSITE, "place": PLACE, "job": JOB, "material": MATERIAL,
          "color": COLOR, "young": YOUNG, "sound": SOUND, "part": PART,
          "synonym": SYNONYM, "cause": CAUSE}
WEIGHTS = {"category": 8, "property": 4, "opposite": 2, "young": 0.5, "sound": 0.5, "science": 2}


# ------------------------------------------------------------------------------------------------ builders
def _others(table, group):
    """The answers that may stand as wrong ones beside an answer of `group`, in a fixed order."""
    near = {word for g, _, word in table if g & group}
    return sorted({word for g, _, word in table if not g & group} - near)


def _from_table(rng, family):
    group, clue, word = rng.choice(TABLES[family])
    return (clue,), f"{clue}/{word}", word, rng.sample(_others(TABLES[family], group), 3)


def _property(rng, family):
    (clue,), members, others = rng.choice(PROPERTY)
    word = rng.choice(members)
    return (clue.replace("_", " "),), f"{clue}/{word}", word, rng.sample(others, 3)


def _odd_one_out(rng, family):
    group, clue, _ = rng.choice(CATEGORY)
    same = [w for _, c, w in CATEGORY if c == clue]
    word = rng.choice(_others(CATEGORY, group))
    return (), f"{clue}/{word}", word, rng.sample(same, 3)


def _analogy(rng, family):
    table = TABLES[rng.choice(["young", "opposite", "synonym"])]
    group, clue, word = rng.choice(table)
    example = rng.choice([row for row in table if not row[0] & group])
    pool = [w for w in _others(table, group) if w not in example]
    return (*example[1:], clue), f"{clue}/{word}", word, rng.sample(pool, 3)


def _scale(rng, family):
    (up, down), things = rng.choice(SCALES)
    most, things = rng.choice([(up, things), (down, things[::-1])])
    at = rng.randrange(3, len(things))
    return (most.replace("_", " "),), f"{most}/{things[at]}", things[at], rng.sample(things[:at], 3)


def _order(rng, family):
    unit = rng.choice(list(ORDER))
    names, step = ORDER[unit], rng.choice([1, -1])
    at = rng.randrange(len(names))
    here, word = names[at], names[(at + step) % len(names)]
    pool = [n for n in names if n not in (here, word)]
    return (unit, "after" if step == 1 else "before", here), f"{here}/{word}", word, rng.sample(pool, 3)


def _science(rng, family):
    question, answers = rng.choice(SCIENCE)
    word, *wrong = answers.split(", ")
    return (question,), f"{question}/{word}", word, wrong


BUILDERS = {"property": _property, "odd_one_out": _odd_one_out, "analogy": _analogy, "scale": _scale, "order": _order,
            "science": _science}


def show(question, options, style):
    """The question with its options in one of the formats above."""
    lettered = list(zip("ABCD", options))
    if style == "words_first":
        return f"Here are four answers: {'; '.join(options)}. {question}"
    return question + {
        "paren": "".join(f"\n{a}) {o}" for a, o in lettered),
        "dot": "".join(f"\n{a}. {o}" for a, o in lettered),
        "inline": "".join(f" ({a}) {o}" for a, o in lettered),
        "options": "\nOptions: " + ", ".join(options),
        "choose": f" Choose one: {', '.join(options[:3])}, or {options[3]}.",
        "colon": "".join(f"\n{a}: {o}" for a, o in lettered),
        "bullets": "".join(f"\n- {o}" for o in options)}[style]


def make_reasoning(rng: random.Random, unseen: bool = False) -> Example:
    """One question with four options; its key is the family, the clue and the right word, never the wording."""
    frames, formats = (UNSEEN_FRAMES, UNSEEN_FORMATS) if unseen else (SEEN_FRAMES, SEEN_FORMATS)
    family = rng.choices(list(frames), [WEIGHTS.get(f, 1) for f in frames])[0]
    slots, about, word, wrong = BUILDERS.get(family, _from_table)(rng, family)
    question = rng.choice(frames[family]).format(*slots)
    options = [word, *wrong]
    rng.shuffle(options)
    style = rng.choices(list(formats), list(formats.values()))[0]
    prompt = show(question[0].upper() + question[1:], options, style)
    return Example(prompt, word, "choice", family, f"{family}/{about}", tuple(options))
