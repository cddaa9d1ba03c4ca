"""What the example searches and asks: one of each pair of near misses is right, in whichever language."""

PASSAGES = [
    ("en", "Error E24 on the dishwasher means that the water does not drain: clean the filter and the hose."),
    ("de", "Fehler E17 an der Spülmaschine: Der Wasserdruck ist zu niedrig, öffnen Sie den Hahn ganz."),
    ("fr", "La cartouche BRK-7720 filtre le calcaire et se remplace tous les six mois."),
    ("en", "Filter cartridge BRK-7702 fits coffee machines built before 2019."),
    ("de", "Der Brotteig geht über Nacht im Kühlschrank und wird am Morgen gebacken."),
    ("zh", "面团在冰箱里发酵一夜，早上烤四十分钟，面包皮会更脆。"),
    ("ru", "Чтобы хлеб не черствел, храните его в льняном мешке, а не в холодильнике."),
    ("en", "The library is open until nine on weekdays and closed on Sundays."),
    ("es", "La biblioteca abre los sábados de diez a dos y cierra en agosto."),
    ("fr", "Le musée est gratuit le premier dimanche du mois."),
    ("zh", "最后一班地铁晚上十一点半从机场开出。"),
    ("de", "Der letzte Nachtbus fährt um halb eins vom Bahnhof ab."),
    ("en", "The ferry to the island does not run in a strong wind."),
    ("ru", "При ожоге держите руку под прохладной водой не меньше десяти минут."),
    ("es", "Si te pica una abeja, quita el aguijón enseguida y pon hielo sobre la piel."),
    ("en", "Maria Skłodowska moved to Paris in 1891 and later won two Nobel Prizes."),
    ("fr", "Marie Curie a découvert le polonium et le radium."),
]

QUERIES = [
    ("en", "BRK-7720"),
    ("en", "What should I do if I burn my hand?"),
    ("fr", "À quelle heure part le dernier métro de l'aéroport ?"),
    ("en", "the dishwasher shows E24"),
    ("zh", "图书馆星期六几点开门？"),
    ("es", "¿Quién era Skłodowska?"),
]
