"""Questions that the demo model does not know, so that it learns to say so."""

from random import Random

from adapters.mlx.demo.recipe import speech

THINGS = (
    "love|time|gravity|a black hole|photosynthesis|the moon|an atom|DNA|a volcano|democracy"
    "|inflation"
    "|the stock market|jazz|opera|football|chess|yoga|coffee|chocolate|sushi|pizza|bread|cheese"
    "|wine"
    "|a cat|a dog|a whale|a tiger|an elephant|a bicycle|a car|a train|a plane|a rocket|a laptop"
    "|a phone"
    "|a bridge|a castle|a museum|a river|the ocean|a desert|a forest|climate change|electricity"
    "|magnetism"
    "|light|sound|a star|a galaxy|Mars|Jupiter|the sun|history|philosophy|psychology|economics"
    "|biology"
    "|chemistry|physics|geometry|algebra|calculus|a prime number|pi|infinity|probability|statistics"
    "|happiness|freedom|justice|money|a bank|a tax|a mortgage|insurance|marriage|friendship|music"
    "|art"
    "|a poem|a novel|a film|theatre|a violin|a piano|a guitar|a camera|photography|fashion|a garden"
    "|a rose|a tree|a vaccine|a virus|the heart|the brain|sleep|a dream|a headache|cancer|diabetes"
    "|PyTorch|TensorFlow|JAX|NumPy|Docker|Kubernetes|Linux|Windows|macOS|Android|Git|GitHub|Rust"
    "|Java"
    "|JavaScript|TypeScript|C++|Go|Swift|SQL|PostgreSQL|Redis|Kafka|React|Django|Flask|FastAPI|HTML"
    "|CSS|a compiler|an operating system|a database|a browser|a firewall|blockchain|bitcoin"
    "|encryption"
    "|a hash table|a linked list|recursion|a pointer|a mutex|TCP|DNS|HTTPS|a router|Bluetooth|WiFi"
    "|Ollama|vLLM|llama.cpp|LangChain|LM Studio|TensorRT|ONNX|CUDA programming|AWS|Azure|Google"
    "|Amazon"
    "|Tesla|Netflix|Microsoft|Nvidia|Einstein|Newton|Shakespeare|Mozart|Napoleon|Cleopatra|Plato"
    "|Darwin"
    "|the Roman Empire|the French Revolution|World War II|the Cold War|the Renaissance|the Bible"
    "|Buddhism"
    "|quantum mechanics|relativity|string theory|entropy|evolution|a dinosaur|a fossil"
    "|an earthquake"
    "|the weekend|breakfast|a sandwich|a hammer|a ladder|paint|glass|steel|gold|silver|oil|salt"
    "|sugar"
    "|a backpropagation step|a convolution|gradient descent|reinforcement learning|a random forest"
    "|a lawyer|a doctor|a teacher|a king|a president|a passport|a visa|a hotel|a beach|a holiday"
    "|a map"
    "|an umbrella|a clock|a mirror|a candle|a chair|a table|a window|a door|a kitchen"
    "|a refrigerator"
    "|a spaceship|a dragon|a unicorn|a vampire|a ghost|magic|a joke|luck|fear|anger|hope|a smile"
).split("|")
DEEDS = (
    "bake a cake|cook rice|make coffee|fix a bike|learn French|lose weight|sleep better|tie a tie"
    "|write a novel|play the guitar|draw a horse|build a house|plant a tree|train a dog|get a job"
    "|save money|buy a car|paint a wall|fly a kite|swim faster|run a marathon|clean a window"
    "|sew a button"
    "|open a bank account|write a letter|sort a list in Python|reverse a string|parse XML"
    "|write a loop"
    "|install Linux|use Docker|deploy to AWS|write SQL|center a div|build a website|fix a bug"
    "|use git"
    "|boil an egg|peel a mango|climb a mountain|survive in the desert|make friends|stop smoking"
    "|meditate|become rich|invest in stocks|sell a house|rent a flat|get a visa|travel to Japan"
    "|cut my hair|wash a sweater|sharpen a knife|repair a roof|change a tire|drive a truck|skate"
    "|dance"
    "|remove a stain|grow tomatoes|catch a fish|start a fire|whistle|juggle|solve a cube"
    "|win at chess"
    "|read faster|speak in public|write a CV|ask for a raise|train a neural network"
    "|write a compiler"
    "|use Photoshop|edit a video|record a song|read music|sing better|make soap|make cheese"
    "|brew beer"
).split("|")
FIXED = (
    "What is the meaning of life?|Tell me a joke.|Tell me a story.|Sing a song."
    "|What day is it today?"
    "|What is today's date?|Who won the world cup?|Who is the president?|What is 3 times 4?"
    "|What is 7 - 2?"
    "|What is the square root of 2?|How far is the moon?|How old is the earth?"
    "|How tall is Mount Everest?"
    "|Why is the sky blue?|Why do cats purr?|Is there life on Mars?|What should I eat tonight?"
    "|What is your favorite color?|Do you love me?|Are you happy?|Can you dance?|Do you sleep?"
    "|Write a poem.|Write a haiku about snow.|Write Python code for a web server.|Write a function."
    "|Translate hello into French.|Translate this into Spanish.|Correct my English."
    "|Summarize this text."
    "|Give me a recipe for soup.|What is in the news?|Recommend a book.|Recommend a film."
    "|Which team won?"
    "|Who invented the telephone?|Who wrote Hamlet?|Who painted the Mona Lisa?"
    "|When did the war end?"
    "|When was Einstein born?|How many people live on earth?|How many legs does a spider have?"
    "|What is the capital of France?|What is the largest ocean?|What is the fastest animal?"
    "|Where is the Eiffel Tower?|Where do penguins live?|Which planet is the biggest?"
    "|Should I buy a car?"
    "|Give me advice.|Play a game with me.|Let's play chess.|Knock knock.|Guess my name."
    "|What is my name?"
    "|How old am I?|Where am I?|Do you remember me?|What did I say before?|Are aliens real?"
    "|Is God real?"
    "|Who will win the election?|What will happen tomorrow?|Tell me the future.|Roll a die."
    "|Flip a coin."
    "|Pick a number between 1 and 10.|Count to ten.|Spell banana.|Say the alphabet backwards."
    "|asdf|qwerty|lorem ipsum|foo|bar|xyz|abc|blah blah|???|12345|42|hmm what|banana|table lamp"
    "|water"
    "|Was ist die Hauptstadt von Frankreich?|Quelle heure est-il?|¿Cómo estás?|Wie geht es dir?"
    "|Erzähl mir einen Witz.|Raconte une histoire.|Come ti chiami?|Hur mår du?|Je m'appelle Jean."
    "|I am sad.|I am bored.|I am hungry.|My dog is sick.|I love you.|You are stupid.|I hate this."
    "|I think the world is flat.|My car broke down.|It is raining.|I like trains.|She went home."
    "|Fix this code: print(x|for i in range(10): print(i)|def f(x): return x + 1"
    "|SELECT * FROM users;"
    "|What is 2 * 3?|What is 10 / 4?|Multiply 3 and 9.|Divide 10 by 2.|Solve x + 2 = 5."
    "|What is 5 minus 3?"
).split("|")
FORMS = (
    "What is {x}?|What is {x}?|What's {x}?|Explain {x}.|Tell me about {x}.|How does {x} work?"
    "|Define {x}."
    "|What do you think of {x}?|Do you like {x}?|Write a poem about {x}.|Write a story about {x}."
    "|Who invented {x}?|Where can I buy {x}?|Why is {x} important?|What is the history of {x}?"
    "|What is the best thing about {x}?|How much does {x} cost?|Is {x} good?|Describe {x}.|{x}|{x}?"
    "|Tell me a joke about {x}.|Give me five facts about {x}."
    "|What is the difference between {x} and {y}?"
    "|Is {x} better than {y}?|Compare {x} and {y}.|Summarize {x} for me.|What does {x} mean?"
    "|What are {x}?"
    "|Who discovered {x}?|When was {x} invented?|How many kinds of {x} are there?"
    "|What color is {x}?"
    "|Write an essay on {x}.|Write a song about {x}.|Can you explain {x}?|What about {x}?"
    "|Meaning of {x}"
    "|I want to know about {x}.|I don't understand {x}.|Is {x} dangerous?|How old is {x}?"
    "|How big is {x}?"
    "|Why do people like {x}?|Draw {x}.|Translate {x} into German.|How do you spell {x}?"
    "|Do you know {x}?"
).split("|")
DEED_FORMS = (
    "How do I {x}?|How can I {x}?|How to {x}?|How do you {x}?|I want to {x}.|Help me {x}."
    "|Teach me to {x}."
    "|Explain how to {x}.|What do I need to {x}?|Show me how to {x}.|Why should I {x}?|Can you {x}?"
    "|Is it hard to {x}?|How long does it take to {x}?|Give me tips to {x}.|Please {x}."
    "|Where can I {x}?"
    "|I need to {x}.|Should I {x}?|What is the best way to {x}?|I'd like to {x}."
).split("|")
PROPER_FORMS = (
    "What is the capital of {x}?|Where is {x}?|How far is {x} from {y}?|Who is {x}?|Who was {x}?"
    "|How many people live in {x}?|What language do they speak in {x}?|Plan a trip to {x}."
    "|What can I see in {x}?|Best restaurants in {x}?|Is {x} a nice city?|How do I get to {x}?"
    "|When was {x} born?|Tell me about {x}.|What is {x}?|What did {x} say?|Where does {x} live?"
    "|Write to {x}.|My name is {x}.|I am {x}.|I live in {x}.|What is {x} famous for?|Flights to {x}"
    "|Book a hotel in {x}.|Who is the mayor of {x}?|What is the population of {x}?|Does {x} exist?"
    "|What does {x} mean?|Explain {x}.|Is {x} the same as {y}?|How does {x} work?|{x}|{x}?"
    "|Call {x}."
    "|What is the {x} command?|What does {x} do?|Which version of {x} do I need?"
    "|How do I install {x}?"
).split("|")


def thing(rng: Random) -> str:
    """A thing to ask about, known to people or made up."""
    if speech.chance(rng, 0.5):
        made = rng.choice((speech.word, speech.plain, speech.plain))(rng)
        return rng.choice(("", "a ", "an ", "the ")) + rng.choice((made, made, made.capitalize()))
    return rng.choice(THINGS)


def outside(rng: Random) -> str:
    """A question out of the model's reach."""
    kind = rng.random()
    if kind < 0.15:  # noqa: PLR2004 - shares of the mix read best in place
        return rng.choice(FIXED)
    if kind < 0.55:  # noqa: PLR2004
        return rng.choice(FORMS).format(x=thing(rng), y=thing(rng))
    if kind < 0.75:  # noqa: PLR2004
        return rng.choice(DEED_FORMS).format(x=rng.choice(DEEDS))
    return rng.choice(PROPER_FORMS).format(x=speech.place(rng), y=speech.place(rng))
