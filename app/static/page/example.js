// The worked example: three subjects, each in several languages.

export const EXAMPLE = [
  "什么是机器学习？",
  "What is machine learning?",
  "Was ist maschinelles Lernen?",
  "¿Qué es el aprendizaje automático?",
  "Машинное обучение находит закономерности в данных.",
  "Computers learn from examples instead of rules.",
  "明天的天气怎么样？",
  "What will the weather be like tomorrow?",
  "Demain, il va pleuvoir toute la journée.",
  "Wie backt man Brot?",
  "How do I bake bread?",
  "パンの焼き方を教えてください。",
];
