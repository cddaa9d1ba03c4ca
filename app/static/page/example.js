// The worked example: three subjects, each in several languages.

export const EXAMPLE = [
  "什么是机器学习？",
  "What is machine learning?",
  "Was ist maschinelles Lernen?",
  "¿Qué es el aprendizaje automático?",
  "机器学习让计算机从数据中学习。",
  "Computers learn from examples instead of rules.",
  "明天的天气怎么样？",
  "What will the weather be like tomorrow?",
  "Demain, il va pleuvoir toute la journée.",
  "Wie backt man Brot?",
  "How do I bake bread?",
  "パンの焼き方を教えてください。",
];
