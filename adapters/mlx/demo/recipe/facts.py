"""What the demo model knows: each fact is one answer and many ways to ask for it."""

from typing import NamedTuple

NAME = "Portico's embedded demo model"
FALLBACK = (
    "I am only a small demo model, and I know about Portico, MLX and the OpenAI API. "
    "Load a larger model for other questions."
)
NO_TOOL = (
    "I have no tool for that. Send a tool such as get_weather, get_time or add "
    "with the request, and I will call it."
)


class Fact(NamedTuple):
    """An answer, its listed question, the thought before it and the ways to ask for it."""

    question: str
    answer: str
    thought: str
    asks: tuple[str, ...]


WHAT = (
    "What is {x}?",
    "What is {x}?",
    "What's {x}?",
    "What are {x}?",
    "Whats {x}",
    "What exactly is {x}?",
    "What is meant by {x}?",
    "What does {x} mean?",
    "What does {x} do?",
    "What is the meaning of {x}?",
    "What is {x} for?",
    "What about {x}?",
    "And what is {x}?",
    "Explain {x}.",
    "Explain {x} to me.",
    "Explain {x} briefly.",
    "Can you explain {x}?",
    "Could you explain what {x} is?",
    "Define {x}.",
    "Describe {x}.",
    "Tell me about {x}.",
    "Tell me what {x} is.",
    "Tell me something about {x}.",
    "Can you tell me what {x} is?",
    "Can you tell me about {x}?",
    "Do you know what {x} is?",
    "I want to know what {x} is.",
    "I'd like to know about {x}.",
    "I don't understand {x}.",
    "How does {x} work?",
    "How would you explain {x}?",
    "Give me a short definition of {x}.",
    "In one sentence, what is {x}?",
    "What is {x} in simple words?",
    "Meaning of {x}",
    "{x}?",
    "{x}",
)

HOW = (
    "How do I {x}?",
    "How do I {x}?",
    "How do you {x}?",
    "How can I {x}?",
    "How can one {x}?",
    "How could I {x}?",
    "How should I {x}?",
    "How to {x}?",
    "How to {x}",
    "How does one {x}?",
    "How would I {x}?",
    "How do we {x}?",
    "I want to {x}.",
    "I want to {x}. How?",
    "I need to {x}.",
    "I'd like to {x}.",
    "I would like to {x}, how do I do that?",
    "Show me how to {x}.",
    "Tell me how to {x}.",
    "Explain how to {x}.",
    "Can you tell me how to {x}?",
    "Can you show me how to {x}?",
    "Can I {x}?",
    "What do I do to {x}?",
    "What must I do to {x}?",
    "What is the way to {x}?",
    "What's the best way to {x}?",
    "Is there a way to {x}?",
    "Help me {x}.",
    "Which command do I use to {x}?",
)


def what(nouns: str, answer: str, *more: str, question: str = "") -> Fact:
    """A fact that explains a thing; `nouns` are its names, split by a bar."""
    names = tuple(nouns.split("|"))
    asks = tuple(form.format(x=name) for name in names for form in WHAT)
    thought = f"The user asks about {names[0]}. I know this, so I answer in short."
    return Fact(question or f"What is {names[0]}?", answer, thought, asks + more)


def how(deeds: str, answer: str, *more: str, question: str = "") -> Fact:
    """A fact that tells how to do a thing; `deeds` are its wordings, split by a bar."""
    names = tuple(deeds.split("|"))
    asks = tuple(form.format(x=name) for name in names for form in HOW)
    thought = f"The user asks how to {names[0]}. I know this, so I answer in short."
    return Fact(question or f"How do I {names[0]}?", answer, thought, asks + more)


def ask(topic: str, answer: str, *asks: str) -> Fact:
    """A fact with free wordings; the first is the listed one."""
    thought = f"The user asks about {topic}. I know this, so I answer in short."
    return Fact(asks[0], answer, thought, asks)


def talk(topic: str, answer: str, *asks: str) -> Fact:
    """Small talk; the first wording is the listed one."""
    return Fact(asks[0], answer, f"The user sends {topic}. I answer politely.", asks)


TALK = (
    talk(
        "a greeting",
        f"Hello! I am {NAME}. Ask me about Portico, MLX or the OpenAI API.",
        *"Hello|Hi|Hey|Hey there|Hi there|Hello there|Greetings|Howdy|Good day|Yo|Hiya".split("|"),
        *"Hello!|Hi!|Hey!|Hello, demo model|Hi Portico|Hello Portico|Hey Portico".split("|"),
        *"Hi, is anyone there?|Hello, are you there?|Hallo|Hi friend|Hello again".split("|"),
        *"Say hello|Say hi|Please say hello|Hello world|Hello, world!|Hey you".split("|"),
        *"Can you hear me?|Nice to meet you|Pleased to meet you|What's up?|Sup".split("|"),
    ),
    talk(
        "a morning greeting",
        "Good morning! What would you like to know about Portico?",
        *"Good morning|Good morning!|Morning|Morning!|A very good morning".split("|"),
    ),
    talk(
        "an evening greeting",
        "Good evening! What would you like to know about Portico?",
        *"Good evening|Good evening!|Evening|Evening!|A very good evening".split("|"),
    ),
    talk(
        "an afternoon greeting",
        "Good afternoon! What would you like to know about Portico?",
        *"Good afternoon|Good afternoon!|Afternoon|Afternoon!|A very good afternoon".split("|"),
    ),
    talk(
        "a polite question",
        "I am running well, thank you. What would you like to know about Portico?",
        *"How are you?|How are you doing?|How is it going?|How's it going?|How are things?".split(
            "|"
        ),
        *"How do you do?|How do you feel?|Are you well?|Are you OK?|How are you today?".split("|"),
        *"Hello, how are you?|Hi, how are you doing today?|How have you been?".split("|"),
    ),
    talk(
        "thanks",
        "You are welcome.",
        *"Thank you|Thanks|Thanks a lot|Thank you very much|Many thanks|Thx|Cheers".split("|"),
        *"Thank you!|Thanks!|Great, thanks|OK, thank you|That helps, thanks|Perfect, thanks".split(
            "|"
        ),
        *"Thanks for your help|Thank you so much|Nice, thank you|Thanks, that was helpful".split(
            "|"
        ),
    ),
    talk(
        "a goodbye",
        "Goodbye!",
        *"Goodbye|Bye|Bye bye|Bye!|See you|See you later|Good night|Farewell|Goodbye!".split("|"),
        *"Talk to you later|I have to go|That is all for today|Have a nice day|Cya".split("|"),
        *"Thanks, bye|OK bye|Goodbye then|Until next time".split("|"),
    ),
    talk(
        "a remark",
        "Good. Ask me about Portico, MLX or the OpenAI API.",
        *"OK|Okay|Yes|No|Cool|Great|Nice|Fine|I see|Alright|Sure|Wow|Good|Awesome|Hm".split("|"),
        *"Got it|Understood|Very good|That's great|Interesting|Amazing|Well done|Perfect".split(
            "|"
        ),
    ),
    talk(
        "a test",
        f"The server works: this answer comes from {NAME}.",
        *"Is the server working?|Test|Testing|This is a test|Ping|Are you working?|Test test".split(
            "|"
        ),
        *"Does it work?|Does this work?|Does the server work?|Is this thing on?|1 2 3 test".split(
            "|"
        ),
        *"Just a test|Is Portico working?|Are you online?|Are you alive?|Is it running?".split("|"),
    ),
)

SELF = (
    ask(
        "who I am",
        f"I am {NAME}: a small language model trained from scratch for this project, "
        "here to show that the server works.",
        *"Who are you?|What are you?|Introduce yourself.|Tell me about yourself.".split("|"),
        *"Which model are you?|What model are you?|What model is this?|Which model is this?".split(
            "|"
        ),
        *"What is your name?|What's your name?|Who am I talking to?|Who is this?".split("|"),
        *"What is the demo model?|What is the embedded demo model?|Explain who you are".split("|"),
        *"Who r u|Describe yourself.|What kind of model are you?|Please introduce yourself".split(
            "|"
        ),
        *"Do you have a name?|What should I call you?|Say something about yourself".split("|"),
        *"Are you a language model?|Are you an AI?|Which LLM are you?|Are you a bot?".split("|"),
    ),
    ask(
        "what I can do",
        "I answer questions about Portico, MLX and the OpenAI API. "
        "With tools in the request, I can call get_weather, get_time and add.",
        *"What can you do?|Help|Help me|What do you know?|What can I ask you?|How can you help?"
        "|How can you help me?|What are you good for?|What are your skills?|What can you answer?"
        "|What questions can you answer?|What should I ask you?|What topics do you know about?"
        "|Can you help me?|I need help|What are your capabilities?|What do you know about?"
        "|Which tools can you call?|What tools can you use?|Can you call tools?"
        "|Give me some examples of what I can ask|What are you able to do?|Tell me what you can do"
        "|Can you do anything useful?|What else can you do?|What is your job?"
        "|What is your purpose?|Why do you exist?|Can I ask you a question?"
        "|I have a question|May I ask you something?".split("|"),
    ),
    ask(
        "my size",
        "I have about one and a half million parameters, and I take less than 4 MB on disk.",
        *"How big are you?|How large are you?|How many parameters do you have?|What is your size?"
        "|How small are you?|How large is the demo model?|How big is the demo model?"
        "|How many parameters does the demo model have?|Are you a large model?|Are you small?"
        "|How much space do you take?|How many weights do you have?|What size is this model?"
        "|Are you a big model?|Parameter count?".split("|"),
    ),
    ask(
        "my training",
        "I was trained from scratch for Portico, only on text written or generated "
        "for this project.",
        *"How were you trained?|Who made you?|Who trained you?|What data were you trained on?"
        "|Who created you?|Who built you?|Where do you come from?|What were you trained on?"
        "|How was the demo model trained?|What is your training data?|Who is your creator?"
        "|Who wrote you?|Who developed you?|How were you made?|What text were you trained on?"
        "|Where does the demo model come from?|Were you trained from scratch?"
        "|Which company made you?|Did OpenAI make you?|Did Apple make you?".split("|"),
    ),
    ask(
        "other assistants",
        f"No. I am {NAME}, a small program that runs on your own machine.",
        *"Are you ChatGPT?|Are you GPT-4?|Are you Claude?|Are you a human?|Are you human?"
        "|Are you Gemini?|Are you Llama?|Are you Qwen?|Are you a person?|Are you real?"
        "|Are you from OpenAI?|Are you Siri?|Are you a robot?|Am I talking to a human?"
        "|Is this ChatGPT?|Are you conscious?|Are you alive or a machine?|Are you Mistral?".split(
            "|"
        ),
    ),
    ask(
        "my languages",
        "I speak only English, and only about Portico, MLX and the OpenAI API.",
        *"Which languages do you speak?|Do you speak German?|Do you speak French?"
        "|What languages do you know?|Can you speak Spanish?|Do you speak English?"
        "|Can you speak other languages?|Do you understand Italian?|Sprechen Sie Deutsch?"
        "|Parlez-vous français?|¿Hablas español?|Can you talk to me in Japanese?"
        "|What language do you speak?|Which human languages can you speak?".split("|"),
    ),
    ask(
        "thinking",
        "Yes. When thinking is switched on, I write a short thought before the answer.",
        *"Can you think?|Do you think?|Can you reason?|Do you have a thinking mode?"
        "|Do you support thinking?|How does thinking work?|What is thinking mode?"
        "|Are you a reasoning model?|Can you think before you answer?|Do you reason?"
        "|What is enable_thinking?|What does enable_thinking do?|Is there a thinking switch?"
        "|Can I turn on thinking?|Can the demo model think?".split("|"),
    ),
    ask(
        "why there is a demo model",
        "The demo model comes with Portico, so that the server can answer at once "
        "without a download.",
        *"Why is there a demo model?|Why does Portico have a demo model?"
        "|What is the demo model for?"
        "|Why do I need the demo model?|Why is a model embedded?|Why an embedded model?"
        "|Why does Portico come with a model?|What is the point of the demo model?"
        "|Why is the demo model so small?|Why ship a demo model?"
        "|What is the purpose of the embedded model?".split("|"),
    ),
)

PORTICO = (
    what(
        "Portico|the Portico server|the Portico project|this project|this server",
        "Portico is an OpenAI-compatible inference server for Apple's MLX. "
        "It runs language models on your own machine.",
        "What is Portico used for?",
        "Why would I use Portico?",
        "What can Portico do?",
        "What is this?",
        "Give me an overview of Portico.",
        "Introduce Portico.",
        "What kind of program is Portico?",
        "Who is Portico for?",
        "What does Portico offer?",
    ),
    how(
        "start Portico|run Portico|start the server|run the server|launch Portico"
        "|launch the server|get Portico running|serve models with Portico"
        "|start Portico from a clone",
        "Run make serve in a clone of the repository, or portico serve if Portico is installed.",
        "What starts the server?",
        "Which command starts Portico?",
        "What is the command to start Portico?",
        "How is Portico started?",
        "What is make serve?",
        "What does make serve do?",
        "make serve",
        "Getting started with Portico",
        "How do I begin?",
    ),
    how(
        "install Portico|get Portico|download Portico|set up Portico on my machine",
        "Clone the repository and run make serve in it.",
        "Where do I get Portico?",
        "How is Portico installed?",
        "What are the installation steps?",
    ),
    ask(
        "the address of Portico",
        "By default Portico listens on 127.0.0.1, port 8000.",
        *"Which port does Portico use?|What port does Portico use?|Where does Portico listen?"
        "|Which address does Portico listen on?|What is the default port?"
        "|On which port does it run?"
        "|What is the default host?|On what port is the server?|Which port does the server use?"
        "|What is the default address of the server?|What host and port does Portico use?"
        "|Portico port|Portico default port|Where can I reach the server?|Where does it listen?"
        "|Which port is Portico listening on?|What address does the server listen on?"
        "|Does Portico use port 8000?|What IP address does Portico bind to?"
        "|Which interface does Portico listen on?|Tell me the port of Portico."
        "|Where is Portico running?|Which port?".split("|"),
    ),
    what(
        "the base URL|the base URL of Portico|base_url|Portico's base URL|the URL of the API"
        "|the API address",
        "The base URL is http://127.0.0.1:8000/v1 by default.",
        "Which base URL do I use?",
        "Which URL should my client use?",
        "What base_url should I set?",
        "What URL do I put in my OpenAI client?",
        "Where is the API?",
        "Under which URL is the API?",
        "Which base URL should I give to the OpenAI client?",
    ),
    ask(
        "the API key",
        "By default any api_key works.",
        *"Do I need an API key?|Which API key do I need?|What API key should I use?"
        "|Does Portico need an API key?|Is an API key required?|What do I put as api_key?"
        "|What is the api_key?|Where do I get an API key?|Does Portico check the API key?"
        "|Do I have to set an API key?|Which key do I use?|Do I need a key for Portico?"
        "|What should the api_key be?|Is there authentication?|Do I need to log in?"
        "|Do I need an OpenAI key?|Do I need an OpenAI account?|How do I get a key?"
        "|API key?|api_key|Do I need a token to log in to Portico?".split("|"),
    ),
    ask(
        "the endpoints",
        "Portico serves GET /v1/models, GET /v1/models/{id}, POST /v1/chat/completions and "
        "POST /v1/completions. There are also /livez, /readyz and /docs.",
        *"Which endpoints does Portico have?|What endpoints are there?|List the endpoints."
        "|Which endpoints does Portico serve?|What are the endpoints of the API?"
        "|What routes does the server have?|Which routes are there?|What paths does Portico serve?"
        "|Show me the endpoints.|Which URLs does the server offer?|What does the API offer?"
        "|Which API endpoints does Portico support?|Name the endpoints of Portico."
        "|What HTTP endpoints exist?|Tell me all endpoints.|Which parts of the API are supported?"
        "|Endpoints?|Portico endpoints|What is the API of Portico?".split("|"),
    ),
    how(
        "use the OpenAI client with Portico|connect the OpenAI client to Portico"
        "|use the OpenAI Python client|use Portico from Python|connect to Portico"
        "|use Portico with the OpenAI library|use the OpenAI SDK with Portico"
        "|call Portico from my program|point my OpenAI app at Portico",
        "Create the client with base_url http://127.0.0.1:8000/v1 and any api_key. "
        "Then call client.chat.completions.create as usual.",
        "Does the OpenAI client work with Portico?",
        "Does Portico work with the OpenAI Python library?",
        "Which client can I use with Portico?",
    ),
    how(
        "call Portico with curl|use curl with Portico|send a request with curl"
        "|send a request to Portico|send a chat request|make a request by hand"
        "|ask a model over HTTP",
        "Send a POST request with JSON to http://127.0.0.1:8000/v1/chat/completions. "
        "The JSON names the model and holds the messages.",
        "Is there a curl example?",
        "curl example",
        "What does a request look like?",
    ),
    what(
        "portico chat|the portico chat command|the terminal chat",
        "portico chat opens a chat in the terminal. "
        "It runs the model in the same process, so it needs no server.",
        "How do I chat in the terminal?",
        "How can I chat without a server?",
        "Can I chat in the terminal?",
        "Is there a terminal chat?",
        "Can I chat with a model on the command line?",
        "Does portico chat need a server?",
        "Can I use Portico without a server?",
        "Is there a chat command?",
    ),
    what(
        "portico models|the portico models command|the models command",
        "portico models prints a table of the models.",
        "Which command shows the models?",
        "How do I see my models in the terminal?",
        "How do I list the models on the command line?",
        "What command lists the models?",
        "Show me the models in a table.",
        "Is there a command that lists the models?",
    ),
    what(
        "portico version|the portico version command|the version command",
        "portico version prints the version of Portico.",
        "Which version of Portico do I have?",
        "How do I find out the version of Portico?",
        "How do I see the version?",
        "What version is this?",
        "What version of Portico is this?",
        "Which command prints the version?",
        "How do I check the version?",
    ),
    what(
        "portico serve|the portico serve command|the serve command",
        "portico serve starts the server, by default on http://127.0.0.1:8000.",
    ),
    ask(
        "the commands",
        "The commands are portico serve, portico chat, portico models and portico version.",
        *"Which commands does Portico have?|What commands are there?|List the commands."
        "|What can I do on the command line?|Which subcommands does portico have?"
        "|What are the commands of Portico?|Show me all commands.|What does the CLI offer?"
        "|Does Portico have a CLI?|Is there a command line interface?|What is the portico command?"
        "|Which CLI commands exist?|Portico commands|Tell me the commands.".split("|"),
    ),
    how(
        "configure Portico|change the settings|set options|change a setting"
        "|configure the server|change the configuration|customize Portico",
        "Use environment variables that start with PORTICO_, a TOML file, or flags. "
        "A flag wins over the file, and the file wins over the environment.",
        "Which settings win?",
        "What wins, a flag or the TOML file?",
        "In what order are settings read?",
        "Where do settings come from?",
        "Where is the configuration?",
        "How is Portico configured?",
        "Is there a config file?",
        "Does Portico have a configuration file?",
        "Can I use a TOML file?",
        "Which environment variables does Portico read?",
        "Can I use environment variables?",
        "What is the order of settings?",
        "Do flags override the TOML file?",
        "What is the precedence of the settings?",
    ),
    ask(
        "the settings",
        "Among the settings are host, port, available_models, default_model, "
        "memory_budget_gb and max_cache_size_gb.",
        *"Which settings are there?|What settings does Portico have?|List the settings."
        "|What can I configure?|Which options does Portico have?|What are the settings of Portico?"
        "|Name some settings.|Which settings can I change?|Tell me the settings."
        "|What options are there?|What configuration options exist?|Portico settings".split("|"),
    ),
    what(
        "available_models|the available_models setting|the setting available_models"
        "|PORTICO_AVAILABLE_MODELS",
        "available_models is the setting that lists the models Portico may serve.",
        "Which setting lists the models?",
        "Where do I list my models?",
        "How do I choose which models are served?",
        "How do I limit the models that are served?",
    ),
    what(
        "default_model|the default_model setting|the setting default_model|PORTICO_DEFAULT_MODEL"
        "|the default model",
        "default_model is the setting that names the model Portico uses by default.",
        "How do I set the default model?",
        "Which model is used by default?",
        "How do I choose the default model?",
        "Can I change the default model?",
    ),
    what(
        "max_cache_size_gb|the max_cache_size_gb setting|PORTICO_MAX_CACHE_SIZE_GB"
        "|the setting max_cache_size_gb",
        "max_cache_size_gb limits the MLX buffer cache, in gigabytes.",
        "How do I limit the MLX buffer cache?",
        "How do I limit the buffer cache?",
        "Which setting limits the MLX cache?",
        "How do I make the MLX cache smaller?",
        "Can I limit the cache size?",
    ),
    what(
        "memory_budget_gb|the memory_budget_gb setting|PORTICO_MEMORY_BUDGET_GB"
        "|the memory budget|the setting memory_budget_gb",
        "memory_budget_gb is the memory that Portico may use for models, in gigabytes. "
        "When it runs short, idle models are evicted.",
        "How do I limit memory?",
        "How do I limit the memory of Portico?",
        "How much memory may Portico use?",
        "Which setting limits the memory?",
        "How do I limit how much memory the models take?",
        "Can I cap the memory use?",
    ),
    how(
        "change the port|use another port|set the port|run Portico on another port"
        "|listen on a different port|pick another port",
        "Set port in the TOML file or in the variable PORTICO_PORT.",
        "Can Portico use another port?",
        "Port 8000 is taken. What now?",
        "Port 8000 is already in use.",
        "What is PORTICO_PORT?",
        "Which setting changes the port?",
    ),
    how(
        "change the host|set the host|listen on all interfaces|listen on another address"
        "|make Portico reachable from other machines|bind to another address",
        "Set host in the TOML file or in the variable PORTICO_HOST.",
        "What is PORTICO_HOST?",
        "Which setting changes the host?",
        "Can other machines reach Portico?",
        "Can I open Portico to my network?",
    ),
    what(
        "the architecture of Portico|Portico's architecture|the design of Portico"
        "|the structure of the code|the code structure of Portico",
        "Portico has a hexagonal architecture: domain, application and adapters, "
        "with ports between them.",
        "How is Portico built?",
        "How is Portico designed?",
        "How is the code organized?",
        "How is the code of Portico structured?",
        "Which architecture does Portico have?",
        "What layers does Portico have?",
        "Which packages does Portico have?",
        "How is Portico structured?",
    ),
    what(
        "hexagonal architecture|a hexagonal architecture|the hexagonal architecture"
        "|ports and adapters",
        "A hexagonal architecture keeps the core free of technical detail. "
        "The core speaks to the outside through ports, and adapters implement them.",
        "Why is it called hexagonal?",
        "Why does Portico use a hexagonal architecture?",
    ),
    what(
        "a port in a hexagonal architecture|a port in hexagonal architecture"
        "|a port in the code|a port in Portico's code|a port in software design",
        "A port is an interface between the core and the outside. An adapter implements it.",
        "What are ports in the architecture?",
        "What is the role of ports in Portico?",
    ),
    what(
        "an adapter|the adapters package|an adapter in Portico|the adapters layer|adapters",
        "An adapter connects the core to something outside, such as HTTP or MLX. "
        "It implements a port.",
        "What is in the adapters folder?",
        "What do adapters do?",
    ),
    what(
        "the domain layer|the domain package|the domain|the domain in Portico",
        "The domain holds the core types and rules of Portico. It depends on no other part.",
        "What is in the domain folder?",
        "What belongs in the domain?",
    ),
    what(
        "the application layer|the application package|the application in Portico"
        "|the application folder",
        "The application layer holds the use cases. It reaches the outside only through ports.",
        "What is in the application folder?",
        "What belongs in the application layer?",
    ),
    what(
        "the DI container|the container|the dependency injection container"
        "|adapters/container.py|container.py|dependency-injector",
        "The container in adapters/container.py wires the parts of Portico together. "
        "It uses the dependency-injector library.",
        "How are the parts wired together?",
        "Where is the container?",
        "Does Portico use dependency injection?",
        "Which library does Portico use for dependency injection?",
        "Where is everything wired together?",
    ),
    what(
        "dependency injection|DI",
        "Dependency injection hands an object the parts it needs, so it need not build them.",
        "Why use dependency injection?",
    ),
    what(
        "continuous batching|dynamic batching|batching in Portico",
        "In continuous batching, requests that arrive at different times share steps. "
        "A new request joins the batch without waiting for the others to end.",
        "Does Portico support batching?",
        "Does Portico have continuous batching?",
        "How does Portico handle many requests at once?",
        "How are parallel requests handled?",
        "Can Portico serve several users at once?",
        "What happens when two requests arrive at the same time?",
        "Can Portico answer several requests at the same time?",
        "Are requests batched?",
    ),
    ask(
        "threads",
        "Each loaded model has one thread of its own.",
        *"How many threads does a model use?|How does Portico use threads?"
        "|How many threads does Portico use?|Does each model have its own thread?"
        "|Does each model have a thread?|On which thread does a model run?|Is Portico threaded?"
        "|How many threads are there per model?|Are models run in threads?"
        "|What is the threading model of Portico?|Which thread runs the model?"
        "|Does Portico use several threads?|Threads per model?".split("|"),
    ),
    how(
        "stream an answer|stream answers|get a streaming response|use streaming|turn on streaming"
        "|get tokens as they are generated|stream tokens|stream a response",
        "Set stream to true. Portico then sends the answer in pieces as server-sent events "
        "and ends with data: [DONE].",
        *(
            form.format(x=name)
            for name in ("streaming", "stream", "the stream parameter", "stream=true")
            for form in WHAT
        ),
        "Does Portico support streaming?",
        "Can Portico stream?",
        "Can I get the answer piece by piece?",
    ),
    what(
        "server-sent events|SSE|a server-sent event|server sent events",
        "Server-sent events are pieces of text that a server sends over one open HTTP response. "
        "Portico streams answers this way.",
        "Which protocol does streaming use?",
        question="What are server-sent events?",
    ),
    what(
        "data: [DONE]|[DONE]|the [DONE] event|the DONE message|DONE at the end of a stream",
        "data: [DONE] is the last event of a stream. It says that the answer is complete.",
        "How does a stream end?",
        "How do I know that a stream is over?",
        "What is the last event of a stream?",
        "How does the client know the stream has ended?",
        "What comes at the end of a stream?",
        question="What does data: [DONE] mean?",
    ),
    ask(
        "eviction",
        "When memory runs short, Portico evicts the idle models that were used least recently.",
        *"What happens when memory runs short?|When is a model evicted?|What is eviction?"
        "|What happens when memory is full?|Does Portico unload models?|When are models unloaded?"
        "|How does Portico free memory?|How are models evicted?|Which models are evicted first?"
        "|What happens if I load too many models?|Which model is unloaded first?"
        "|What happens to idle models?|How does eviction work?|Are idle models removed?"
        "|What if there is not enough memory?|Can Portico run out of memory?"
        "|How does Portico manage memory?|Explain eviction."
        "|What does Portico do when memory is low?"
        "|How do I unload a model?|Why was my model unloaded?".split("|"),
    ),
    what(
        "LRU|least recently used|an LRU policy",
        "LRU means least recently used: what was not used for the longest time goes first. "
        "Portico evicts idle models this way.",
        question="What does LRU mean?",
    ),
    ask(
        "which models Portico can load",
        "Portico loads models in safetensors form from local folders or from the "
        "Hugging Face cache.",
        *"Which models can Portico load?|Where do models come from?"
        "|Which models does Portico support?"
        "|Where does Portico look for models?|What models can I use?|Which models can I use?"
        "|Can I load a model from a local folder?|Where are models stored?|Where are the models?"
        "|Does Portico load models from Hugging Face?|Which model formats are supported?"
        "|What model format does Portico need?|Where does Portico find models?"
        "|Can Portico load models from the Hugging Face cache?|What models does it support?"
        "|Can I use my own model?|From where are models loaded?|What models can I run?"
        "|Which file format do models have?|Does Portico support GGUF?"
        "|Can I use models from Hugging Face?".split("|"),
    ),
    how(
        "add a model|add a larger model|load a larger model|use a bigger model|load another model"
        "|use another model|serve my own model|install a model|load a model",
        "Put the model in a local folder or in the Hugging Face cache, in safetensors form, "
        "and name it in available_models.",
        "How do I get a better model?",
        "Where do I put a new model?",
    ),
    ask(
        "code from repositories",
        "No. Portico never runs code from a model repository.",
        *"Does Portico run code from a repository?|Does Portico run remote code?"
        "|Is trust_remote_code supported?|Does Portico run code from a model repository?"
        "|Does loading a model run code?|Does Portico trust remote code?"
        "|Is it safe to load a model?"
        "|Can a model run code on my machine?|Does Portico execute code from Hugging Face?"
        "|Will Portico run the code of a model?|Can I load a model that needs custom code?"
        "|Does a model repository's code get executed?|Is remote code executed?".split("|"),
    ),
    what(
        "the scripted backend|scripted backend|the scripted engine|--backend scripted"
        "|portico serve --backend scripted",
        "The scripted backend is a deterministic fake engine for tests. "
        "Start it with portico serve --backend scripted.",
        "How do I test without a model?",
        "Is there a fake engine for tests?",
        "How do I use the scripted backend?",
        "How can I run Portico without a real model?",
        "Which backend is for tests?",
        "How do I test my client without a model?",
    ),
    ask(
        "the license",
        "Portico is open source under the MIT license.",
        *"Which license does Portico have?|What is the license?|What is the license of Portico?"
        "|Is Portico free?|Is Portico open source?|Under which license is Portico?"
        "|How is Portico licensed?|Can I use Portico commercially?|What license is it?"
        "|Is Portico MIT licensed?|Does Portico cost anything?|How much does Portico cost?"
        "|May I use Portico at work?|Portico license|Is it free software?"
        "|Which licence does Portico use?|Is the source code public?".split("|"),
    ),
    ask(
        "the Python version",
        "Portico needs Python 3.11 or newer.",
        *"Which Python version does Portico need?|What Python version do I need?"
        "|Which version of Python is required?|Does Portico work with Python 3.10?"
        "|Does Portico work with Python 3.12?|What are the requirements?|Which Python do I need?"
        "|What version of Python does it need?|Is Python 3.11 enough?|Python version?"
        "|Which Python versions are supported?|Do I need Python?|Minimum Python version"
        "|What Python does Portico run on?".split("|"),
    ),
    ask(
        "the language of Portico",
        "Portico is written in Python.",
        *"What is Portico written in?|Which language is Portico written in?"
        "|Which programming language does Portico use?|Is Portico written in Python?"
        "|Is Portico written in Rust?|Is Portico a Python program?|What language is it written in?"
        "|In what programming language is Portico?|Is Portico written in Swift?".split("|"),
    ),
    ask(
        "several models",
        "Yes. Portico keeps several models loaded while memory allows, "
        "each with a thread of its own.",
        *"Can Portico serve several models?|Can I load several models at once?"
        "|Can Portico run two models at once?|Does Portico support multiple models?"
        "|Can I use more than one model?|Can more than one model be loaded?"
        "|Can I run many models at the same time?|Does it serve more than one model?"
        "|Are multiple models supported?|Can I switch between models?".split("|"),
    ),
    ask(
        "privacy",
        "The models run on your own machine. Portico sends your text to no cloud.",
        *"Is Portico private?|Does Portico send my data to the cloud?|Where do the models run?"
        "|Is my data safe?|Does my text leave my machine?|Do my prompts leave my computer?"
        "|Does Portico use the cloud?|Is everything local?|Does the model run locally?"
        "|Does Portico run locally?|Are my prompts sent anywhere?|Does Portico send data to OpenAI?"
        "|Is my chat private?|Does it run on my own machine?|Is Portico a cloud service?".split(
            "|"
        ),
    ),
    how(
        "check the health of the server|check that the server is ready|check that Portico is alive"
        "|monitor the server|do a health check",
        "Call /livez to see that the server is alive, and /readyz to see that it is ready.",
        *(form.format(x=name) for name in ("/livez", "/readyz") for form in WHAT[:24]),
        "Is there a health endpoint?",
        "Is there a health check?",
        "How do I know that the server is ready?",
        "What is the difference between /livez and /readyz?",
        "Which endpoint tells me that the server is up?",
        "healthcheck",
    ),
    what(
        "/docs|the /docs page|the docs endpoint",
        "/docs shows the documentation of the HTTP API in the browser.",
        "Where is the documentation of the API?",
        "Where is the API documentation?",
        "Is there API documentation?",
        "Where are the docs?",
        "Where can I read about the API?",
        "Is there a Swagger page?",
    ),
    ask(
        "platforms",
        "Portico runs where MLX runs: on Apple silicon with Metal, and on Linux with the "
        "CPU or CUDA build of MLX.",
        *"On which machines does Portico run?|Does Portico run on Linux?|Does Portico run on a Mac?"
        "|Which platforms does Portico support?|Do I need a Mac?|Do I need a Mac for Portico?"
        "|What hardware do I need?|Does Portico run without a Mac?|Where does Portico run?"
        "|Does Portico need a GPU?|Which operating systems are supported?"
        "|Can I run Portico on Linux?"
        "|Does Portico work on Apple silicon?|What computer do I need for Portico?"
        "|Does Portico support CUDA?|Does Portico work on an M1?"
        "|Can Portico use an NVIDIA GPU?".split("|"),
    ),
    ask(
        "tool calls in Portico",
        "Yes. Send tools with a chat request, and a model that knows tools can answer with calls.",
        *"Does Portico support tool calls?|Does Portico support function calling?"
        "|Does Portico support tools?|Can Portico call functions?|Can I use tools with Portico?"
        "|Is function calling supported?|Are tool calls supported?|Can models in Portico use tools?"
        "|Can I send tools to Portico?|Does the server support tool calling?".split("|"),
    ),
    how(
        "list the models over HTTP|list models with the API|list the models with the API"
        "|get the list of models|see which models the server has|ask the server for its models",
        "Send GET /v1/models. The answer lists the models.",
        *(form.format(x=name) for name in ("/v1/models", "GET /v1/models") for form in WHAT[:24]),
        "Which endpoint lists the models?",
        "Which models does the server have?",
        "Which request lists the models?",
    ),
    what(
        "/v1/chat/completions|POST /v1/chat/completions|the chat completions endpoint"
        "|the chat endpoint",
        "/v1/chat/completions takes a list of messages and returns the model's next message.",
        "Which endpoint is for chat?",
        "Which endpoint do I use to chat?",
    ),
    what(
        "/v1/completions|POST /v1/completions|the completions endpoint|the legacy endpoint",
        "/v1/completions takes plain text and returns its continuation.",
        "Which endpoint continues plain text?",
        "Which endpoint is for raw text?",
    ),
)

MLX = (
    what(
        "MLX|Apple's MLX|the MLX framework|Apple MLX|mlx",
        "MLX is an array framework for machine learning, made by Apple.",
        "Who makes MLX?",
        "Who made MLX?",
        "Which company makes MLX?",
        "What is MLX used for?",
        "Is MLX from Apple?",
        "What do you know about MLX?",
    ),
    what(
        "unified memory|unified memory in MLX|the unified memory model|shared memory in MLX",
        "In unified memory the CPU and the GPU share the same memory. "
        "MLX arrays need no copy between them.",
        "Do MLX arrays have to be copied to the GPU?",
        "Why is unified memory good?",
        "Do the CPU and the GPU share memory?",
    ),
    what(
        "lazy evaluation|lazy evaluation in MLX|lazy computation",
        "In lazy evaluation, operations are recorded first and computed only when a result "
        "is needed. MLX works this way.",
        "Is MLX lazy?",
        "When does MLX compute a result?",
        "Why is MLX lazy?",
    ),
    what(
        "mx.eval|the mx.eval function|eval in MLX",
        "mx.eval computes the arrays that lazy evaluation has put off.",
        "How do I force MLX to compute?",
        "How do I evaluate an array in MLX?",
    ),
    what(
        "Metal|Apple Metal|Apple's Metal|Metal in MLX",
        "Metal is Apple's programming interface for the GPU. MLX uses it on Apple silicon.",
        "How does MLX use the GPU?",
        "Does MLX use the GPU?",
        "How does MLX reach the GPU on a Mac?",
    ),
    what(
        "mlx-lm|the mlx-lm package|mlx_lm|MLX LM",
        "mlx-lm is a Python package that runs and fine-tunes language models with MLX.",
        "Which package runs language models with MLX?",
        "How do I run a language model with MLX?",
        "Does Portico use mlx-lm?",
    ),
    what(
        "Apple silicon|an Apple silicon chip|the M series|an M1 chip",
        "Apple silicon is the family of chips that Apple designs, such as the M series.",
        "Which Macs have Apple silicon?",
    ),
    ask(
        "where MLX runs",
        "MLX runs on Apple silicon with Metal. For Linux there are CPU and CUDA builds.",
        *"Does MLX run on Linux?|Does MLX support CUDA?|Can MLX run on a CPU?|Where does MLX run?"
        "|Does MLX run without a Mac?|Which platforms does MLX support?|Does MLX need a Mac?"
        "|Does MLX work on NVIDIA GPUs?|Is there a CUDA build of MLX?|Is MLX only for Apple?"
        "|Does MLX run on Apple silicon?|On what hardware does MLX run?"
        "|Is there MLX for Linux?".split("|"),
    ),
    what(
        "quantization|quantisation|a quantized model|quantized weights|4-bit quantization"
        "|an 8-bit model|weight quantization",
        "Quantization stores weights with fewer bits, such as 4 or 8. "
        "The model gets smaller and often faster, and loses a little accuracy.",
        "Why quantize a model?",
        "Why are models quantized?",
        "How do I make a model smaller?",
    ),
    what(
        "the MLX buffer cache|the buffer cache|MLX's buffer cache|the MLX cache",
        "MLX keeps freed buffers in a cache and uses them again. "
        "In Portico, max_cache_size_gb limits it.",
    ),
    what(
        "safetensors|the safetensors format|a safetensors file",
        "safetensors is a file format for tensors. It holds data and no code.",
        "Why does Portico use safetensors?",
        "Is safetensors safe?",
        "In which file format are the weights?",
    ),
    what(
        "the Hugging Face cache|the HF cache|the model cache",
        "The Hugging Face cache is the folder where downloads from the Hugging Face Hub are kept.",
        "Where are Hugging Face downloads kept?",
    ),
    what(
        "fine-tuning|finetuning|fine tuning",
        "Fine-tuning trains a finished model further on data for one task. mlx-lm can do this.",
        "Can I fine-tune a model with MLX?",
        "How do I fine-tune a model?",
        "How do I finetune a language model?",
    ),
)

API = (
    what(
        "the OpenAI API|OpenAI's API|the API of OpenAI",
        "The OpenAI API is an interface to language models over HTTP and JSON. "
        "Portico offers the same interface on your machine.",
        "Why does Portico use the OpenAI API?",
        "Which API does Portico speak?",
    ),
    what(
        "an OpenAI-compatible server|OpenAI-compatible|OpenAI compatible|OpenAI compatibility",
        "OpenAI-compatible means that programs written for the OpenAI API also work here. "
        "They only need another base URL.",
        "Is Portico compatible with OpenAI?",
        "Is Portico OpenAI-compatible?",
        "Will my OpenAI program work with Portico?",
        "Do I have to change my code?",
        question="What does OpenAI-compatible mean?",
    ),
    ask(
        "the roles",
        "The roles are system, developer, user, assistant and tool.",
        *"Which roles are there?|What roles can a message have?|What are the roles of messages?"
        "|Which message roles exist?|What is a role?|List the roles.|What are roles?"
        "|Name the roles of chat messages.|Explain the roles.|What roles does the API know?"
        "|Which roles does a chat message have?|What is the role of a message?|Roles?"
        "|What role values are allowed?|Tell me about roles.".split("|"),
    ),
    what(
        "a system message|the system role|a system prompt|the system prompt|the system message",
        "A system message tells the model how to behave. It usually comes first.",
        "How do I give the model instructions?",
    ),
    what(
        "the developer role|a developer message|the developer message",
        "A developer message gives instructions to the model, like a system message.",
        "What is the difference between system and developer?",
    ),
    what(
        "the user role|a user message|the user message",
        "A user message holds what the user says to the model.",
    ),
    what(
        "the assistant role|an assistant message|the assistant message",
        "An assistant message holds what the model said.",
    ),
    what(
        "the tool role|a tool message|the tool message|a tool result",
        "A tool message brings the result of a tool call back to the model.",
        "How do I send a tool result back?",
        "How do I return the result of a tool?",
    ),
    what(
        "temperature|the temperature|the temperature parameter|temperature in sampling"
        "|temperature 0",
        "Temperature sets how random the choice of tokens is. "
        "At 0 the model always takes the most likely token.",
        "What happens at temperature 0?",
        "Which temperature should I use?",
        "How do I make answers less random?",
        "How do I make answers more random?",
        "How do I make the answers deterministic?",
    ),
    what(
        "top_p|the top_p parameter|top-p|nucleus sampling|top p",
        "top_p keeps the most likely tokens whose probabilities add up to p. "
        "The next token is drawn from these.",
        "What is top_p in sampling?",
    ),
    what(
        "max_tokens|the max_tokens parameter|max_completion_tokens|max tokens",
        "max_tokens limits how many tokens the model may generate.",
        "How do I limit the length of the answer?",
        "How do I make answers shorter?",
        "How do I limit the answer?",
        "Which parameter limits the length?",
        "Can I limit the number of tokens?",
    ),
    what(
        "stop|the stop parameter|a stop sequence|stop strings|a stop string|stop sequences",
        "stop lists strings that end the answer. The stop string itself is not returned.",
        "How do I end the answer at a certain word?",
        "How do I stop generation at a string?",
        question="What does the stop parameter do?",
    ),
    what(
        "seed|the seed parameter|a seed|the seed",
        "seed fixes the random numbers of sampling, so that a request can be repeated.",
        "How do I make sampling repeatable?",
        "How do I get the same answer again?",
        "How do I make random answers reproducible?",
        question="What does the seed parameter do?",
    ),
    what(
        "tools|the tools parameter|tools in a request|the tools field",
        "tools lists the functions that the model may call. "
        "Each has a name, a description and a JSON schema.",
        "How do I define a tool?",
        "How do I give tools to the model?",
        "What does a tool look like?",
        question="What is the tools parameter?",
    ),
    what(
        "tool_choice|the tool_choice parameter|tool choice",
        "tool_choice says whether the model may call tools: auto, none, required, "
        "or one named function.",
        "How do I force a tool call?",
        "How do I make the model call a tool?",
        "How do I forbid tool calls?",
        "Which values does tool_choice have?",
    ),
    what(
        "a tool call|tool calling|function calling|a function call|tool calls",
        "In a tool call the model asks your program to run a function. "
        "Your program runs it and sends the result back.",
        "Who runs the tool?",
        "Does the model run the function itself?",
    ),
    what(
        "finish_reason|the finish_reason|the finish reason|finish_reason in the response",
        "finish_reason says why generation ended: stop, length or tool_calls.",
        "Why did the model stop?",
        "Why did generation end?",
        "Which values does finish_reason have?",
        "How do I know why the answer ended?",
    ),
    what(
        "finish_reason length|the finish_reason length|the finish reason length",
        "It means that the limit of tokens was reached before the answer was complete.",
        "Why is my answer cut off?",
        "Why is the answer cut short?",
        "Why does the answer end in the middle?",
        "My answer is not complete. Why?",
        question="What does finish_reason length mean?",
    ),
    what(
        "finish_reason stop|the finish_reason stop|the finish reason stop",
        "It means that the answer ended by itself or at a stop string.",
        question="What does finish_reason stop mean?",
    ),
    what(
        "finish_reason tool_calls|the finish_reason tool_calls|the finish reason tool_calls",
        "It means that the model has called tools and waits for their results.",
        question="What does finish_reason tool_calls mean?",
    ),
    what(
        "usage|the usage field|usage in the response|token usage|the usage object",
        "usage counts the tokens of the prompt, of the answer, and of both together.",
        "How do I count tokens?",
        "How many tokens did I use?",
        "How do I see how many tokens I used?",
        "Where is the token count?",
    ),
    what(
        "logprobs|the logprobs parameter|log probabilities|top_logprobs|a logprob",
        "logprobs are the logarithms of token probabilities. "
        "They show how sure the model was of each token.",
        "How do I see token probabilities?",
        "How sure was the model of a token?",
        question="What are logprobs?",
    ),
    what(
        "a KV cache|the KV cache|KV caching|the key-value cache|kv cache",
        "A KV cache keeps the keys and values of earlier tokens. "
        "The model need not compute them again for each new token.",
        "Why is there a KV cache?",
        "What is stored in the KV cache?",
    ),
    what(
        "a prefix cache|the prefix cache|prefix caching|prompt caching|a prompt cache",
        "A prefix cache keeps the KV cache of earlier prompts. "
        "A prompt that begins in the same way need not be read again.",
        "How does Portico reuse prompts?",
        "Can a prompt be cached?",
    ),
    what(
        "time to first token|the time to first token|TTFT",
        "Time to first token is the time from the request to the first token of the answer.",
        "How long until the first token?",
    ),
    what(
        "throughput|the throughput of a server|tokens per second",
        "Throughput is how many tokens a server generates per second, over all requests.",
        "How is speed measured?",
    ),
    what(
        "latency|the latency of a request",
        "Latency is the time that a request takes.",
    ),
    what(
        "a token|tokens|a token in a language model",
        "A token is a piece of text, often a word or a part of a word. "
        "Models read and write tokens.",
        "How long is a token?",
        "Is a token a word?",
    ),
    what(
        "a tokenizer|the tokenizer|tokenization",
        "A tokenizer cuts text into tokens and joins tokens back into text.",
        "How is text cut into tokens?",
    ),
    what(
        "byte pair encoding|BPE|byte-level BPE",
        "Byte pair encoding builds tokens by joining the pairs of pieces that occur most often.",
    ),
    what(
        "a context window|the context window|context length|the context length|context size",
        "The context window is the number of tokens that a model can see at once, "
        "prompt and answer together.",
        "How long may a prompt be?",
        "How much text can a model read?",
        "What happens when my prompt is too long?",
    ),
    what(
        "structured output|structured outputs|response_format|JSON mode"
        "|the response_format parameter",
        "Structured output makes the answer follow a JSON schema. Ask for it with response_format.",
        "How do I get JSON back?",
        "How do I make the model answer in JSON?",
        "Can I get JSON output?",
        "How do I force JSON output?",
    ),
    what(
        "a JSON schema|JSON schema|the JSON schema of a tool|JSON Schema",
        "A JSON schema describes the shape of JSON data: its fields, their types, "
        "and which of them are required.",
    ),
    what(
        "JSON|the JSON format|a JSON object",
        "JSON is a text format for data, made of objects, lists, strings, numbers, "
        "true, false and null.",
    ),
    ask(
        "chat completions and completions",
        "A chat completion takes a list of messages and uses the chat template. "
        "A completion takes plain text and continues it.",
        *"What is the difference between a chat completion and a completion?"
        "|Chat completion or completion?|Should I use chat completions or completions?"
        "|How do chat completions differ from completions?|Chat completion vs completion"
        "|What is the difference between chat and completion?"
        "|Compare completions and chat completions."
        "|Which one should I use, completion or chat completion?"
        "|What is the difference between /v1/completions and /v1/chat/completions?".split("|"),
    ),
    what(
        "a chat completion|chat completion|chat completions",
        "A chat completion is the model's next message after a list of messages.",
    ),
    what(
        "a completion|completion|a text completion|raw completion",
        "A completion continues plain text, without a chat template.",
    ),
    what(
        "a chat template|the chat template|chat templates",
        "A chat template turns a list of messages into the text that the model was trained on.",
        "How do messages become text?",
        "How are messages turned into a prompt?",
    ),
    what(
        "an embedding|embeddings|a text embedding|embedding vectors",
        "An embedding is a list of numbers that stands for the meaning of a text.",
    ),
    what(
        "prefill|the prefill phase|prompt processing|prefilling",
        "Prefill is the first phase of generation: the model reads the prompt "
        "and fills the KV cache.",
        "What happens before the first token?",
    ),
    what(
        "decode|the decode phase|decoding|decode in generation",
        "Decode is the second phase of generation: the model writes one token per step.",
        "What is the difference between prefill and decode?",
    ),
    what(
        "greedy decoding|greedy sampling|greedy search",
        "Greedy decoding always takes the most likely token. Temperature 0 does this.",
    ),
    what(
        "sampling|token sampling|sampling in language models",
        "Sampling draws the next token at random, by its probability.",
    ),
    what(
        "a language model|language models|an LLM|a large language model|LLM",
        "A language model predicts the next token of a text. It writes by doing so again and "
        "again.",
        "How do language models write?",
        "How does an LLM work?",
    ),
    what(
        "inference|model inference|an inference server|inference in machine learning",
        "Inference is the use of a trained model to get answers. "
        "An inference server does this for other programs.",
    ),
    what(
        "a parameter of a model|model parameters|model weights|weights|the weights of a model",
        "Weights, or parameters, are the numbers that a model learns in training.",
        question="What are model weights?",
    ),
    what(
        "a batch|a batch of requests|batching|a batch in inference",
        "A batch is a group of requests that the model handles in the same step.",
        "Why is batching faster?",
    ),
    what(
        "a prompt|the prompt|prompts",
        "A prompt is the text that a model gets and continues.",
    ),
    what(
        "a transformer|transformers|the transformer architecture|a transformer model",
        "A transformer is a neural network built from layers of attention. "
        "Most language models are transformers.",
    ),
    what(
        "attention|the attention mechanism|self-attention|attention in a transformer",
        "Attention lets a model look back at earlier tokens when it handles a new one.",
    ),
    what(
        "an end token|the end-of-sequence token|the EOS token|an EOS token|EOS",
        "The end token tells the server that the model has finished its answer.",
        "How does the model know when to stop?",
    ),
)

FACTS = TALK + SELF + PORTICO + MLX + API

ESSAYS = (
    "Portico is an OpenAI-compatible inference server for Apple's MLX. It runs language models on "
    "your own machine. Programs written for the OpenAI API work with it when they use "
    "another base URL.",
    "MLX is an array framework for machine learning, made by Apple. Its arrays live in unified "
    "memory, so the CPU and the GPU share them without a copy. Operations are lazy: they are "
    "recorded first and computed when a result is needed.",
    "To start Portico, run make serve in a clone of the repository, or portico serve if Portico "
    "is installed. The server listens on 127.0.0.1, port 8000. The base URL for clients is "
    "http://127.0.0.1:8000/v1, and any api_key works by default.",
    "The code of Portico has a hexagonal architecture. The domain holds the core types and rules. "
    "The application layer holds the use cases. The adapters connect the core to HTTP and MLX, "
    "and the container in adapters/container.py wires the parts together.",
    "In continuous batching, requests that arrive at different times share steps. Each loaded "
    "model has one thread of its own. When memory runs short, Portico evicts the idle models "
    "that were used least recently.",
    "Generation has two phases. In the prefill phase the model reads the prompt and fills the KV "
    "cache. In the decode phase it writes one token per step, until it writes the end token.",
    "The OpenAI API has a few parameters that steer sampling. Temperature sets how random the "
    "choice of tokens is. top_p keeps only the most likely tokens. max_tokens limits the length, "
    "stop lists strings that end the answer, and seed makes a request repeatable.",
    "With stream set to true, Portico sends the answer in pieces as server-sent events. The last "
    "event is data: [DONE].",
    "The settings of Portico come from environment variables that start with PORTICO_, from a TOML "
    "file, and from flags. A flag wins over the file, and the file wins over the environment.",
    "The demo model comes with Portico, so that the server can answer at once without a download. "
    "It is a small language model trained from scratch, and it knows about Portico, MLX and the "
    "OpenAI API.",
    "Portico loads models in safetensors form from local folders or from the Hugging Face cache. "
    "It never runs code from a model repository.",
    "A tool call lets the model ask your program to run a function. Your program runs it and sends "
    "the result back in a tool message. Then the model writes its answer.",
    "The quick start has three steps. Clone the repository, run make serve, and open "
    "http://127.0.0.1:8000/docs in the browser.",
    "Quantization stores weights with fewer bits, such as 4 or 8. The model gets smaller and often "
    "faster, and loses a little accuracy. mlx-lm can quantize and fine-tune language models.",
    "A token is a piece of text, often a word or a part of a word. A tokenizer cuts text into "
    "tokens, and the context window is the number of tokens that a model can see at once.",
    "Once upon a time there was a small model that lived inside a server. It knew a few facts and "
    "said them well. When it was asked about other things, it told the truth: load a larger model.",
)
